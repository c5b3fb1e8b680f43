//! The program `drivefs`; everything is in the library.

fn main() -> std::process::ExitCode {
    drivefs::main()
}
