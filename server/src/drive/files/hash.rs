//! Dropbox's `content_hash`: SHA-256 over the SHA-256 of each 4 MiB of the content. Pure.
//! (dropbox.com/developers/reference/content-hash)

use sha2::Digest;
use sha2::Sha256;

const PIECE_BYTES: usize = 4 * 1024 * 1024;

#[derive(Default)]
pub struct ContentHash {
    all: Sha256,
    piece: Sha256,
    in_piece: usize,
}

impl ContentHash {
    pub fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let n = bytes.len().min(PIECE_BYTES - self.in_piece);
            self.piece.update(&bytes[..n]);
            self.in_piece += n;
            bytes = &bytes[n..];
            if self.in_piece == PIECE_BYTES {
                self.end_piece();
            }
        }
    }

    /// In hexadecimal.
    pub fn finish(mut self) -> String {
        if self.in_piece > 0 {
            self.end_piece();
        }
        self.all.finalize().iter().map(|b| format!("{b:02x}")).collect()
    }

    fn end_piece(&mut self) {
        self.all.update(std::mem::take(&mut self.piece).finalize());
        self.in_piece = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_the_official_client() {
        let mut small = ContentHash::default();
        small.update(b"hello");
        assert_eq!(
            small.finish(),
            "9595c9df90075148eb06860365df33584b75bff782a510c6cd4883a419833d50"
        );
        let mut large = ContentHash::default();
        for piece in vec![7u8; 9 * 1024 * 1024 + 5].chunks(1_000_003) {
            large.update(piece);
        }
        assert_eq!(large.finish(), LARGE);
        assert_eq!(
            ContentHash::default().finish(),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
    }

    const LARGE: &str = "4b29eb615370735782ab8335b14ca9e1348e770a8b4ec4616a7742304739c1e8";
}
