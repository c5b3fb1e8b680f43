//! The program `drivefs`; everything is in the library.

/// Gives memory back after a load, where the system's allocator keeps it: an idle daemon is small.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> std::process::ExitCode {
    drivefs::main()
}
