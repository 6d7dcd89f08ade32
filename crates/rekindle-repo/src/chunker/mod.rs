//! Cutting content into blobs. Where to cut is free in the format; a cut depends on the content
//! alone, never on how it was read.

mod gear;

pub use gear::Gear;

/// Shortest chunk of content-defined cutting, in bytes (except the last of a content).
pub const CONTENT_BYTES_MIN: usize = 512 << 10;
/// Average that content-defined cutting aims at, in bytes.
pub const CONTENT_BYTES_AVERAGE: usize = 1 << 20;
/// Longest chunk of content-defined cutting, in bytes.
pub const CONTENT_BYTES_MAX: usize = 8 << 20;
/// Longest chunk of any cutting, in bytes.
pub const CHUNK_BYTES_MAX: usize = 16 << 20;

/// How content is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Chunking {
    /// At places that the content decides: finds equal parts that moved.
    #[default]
    Content,
    /// Every so many bytes: for files that are changed in place, page by page.
    Fixed {
        /// 4 KiB to 16 MiB; other values are moved to the border.
        bytes: usize,
    },
    /// Not at all, up to 16 MiB: for files that never change.
    Whole,
}

impl Chunking {
    /// For PostgreSQL relation files: eight pages. Measured against 1 MiB and content-defined
    /// cutting, it stores several times less when few pages changed.
    pub const PAGES: Self = Self::Fixed { bytes: 64 << 10 };
}

/// Decides where to cut.
#[derive(Debug, Clone)]
pub enum Cutter {
    /// Content-defined.
    Gear(Box<Gear>),
    /// Every so many bytes.
    Fixed(usize),
}

impl Cutter {
    /// With secret boundaries: `secret` and `salt` belong to the repository.
    pub fn new(chunking: Chunking, secret: &[u8], salt: &[u8]) -> Self {
        match chunking {
            Chunking::Content => Self::Gear(Box::new(Gear::new(secret, salt))),
            Chunking::Fixed { bytes } => Self::Fixed(bytes.clamp(4 << 10, CHUNK_BYTES_MAX)),
            Chunking::Whole => Self::Fixed(CHUNK_BYTES_MAX),
        }
    }

    /// Bytes it wants to see before it decides.
    pub fn window(&self) -> usize {
        match self {
            Self::Gear(_) => CONTENT_BYTES_MAX,
            Self::Fixed(bytes) => *bytes,
        }
    }

    /// Length of the first chunk of `data`, which must be at least [`window`](Self::window) long
    /// or reach to the end of the content.
    pub fn cut(&self, data: &[u8]) -> usize {
        match self {
            Self::Gear(gear) => gear.cut(data),
            Self::Fixed(bytes) => data.len().min(*bytes),
        }
    }
}
