//! Is this page of a listing really one?
//!
//! `object_store` reads a page with every element optional, so an error page or a proxy's HTML that
//! comes with status 200 would be an empty listing, and a page that says "there is more" without
//! saying where would be the last one. Both are errors here.
//!
//! Formats: S3 ListObjectsV2 (GCS's XML interface answers the same), Azure List Blobs.

use std::fmt;

/// Why a page is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NotAListing(&'static str);

impl fmt::Display for NotAListing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the answer is not a complete page of a listing: {}", self.0)
    }
}

impl std::error::Error for NotAListing {}

/// Whether a request with this method and query asks for a listing.
pub(super) fn is_asked_by(method: &http::Method, query: Option<&str>) -> bool {
    let asks = |pair: &str| pair == "list-type=2" || pair == "comp=list";
    method == http::Method::GET && query.is_some_and(|query| query.split('&').any(asks))
}

/// Checks one page.
pub(super) fn check(page: &[u8]) -> Result<(), NotAListing> {
    let text = std::str::from_utf8(page).map_err(|_| NotAListing("it is not UTF-8"))?;
    let text = text.trim_start_matches('\u{feff}').trim();
    let body = match text.strip_prefix("<?") {
        Some(declaration) => declaration.split_once("?>").map_or("", |(_, rest)| rest.trim_start()),
        None => text,
    };
    if body.starts_with("<ListBucketResult") {
        let more = body.contains("<IsTruncated>true<");
        let place = body.contains("<NextContinuationToken>") && !body.contains("<NextContinuationToken><");
        if !is_closed(body, "</ListBucketResult>") {
            Err(NotAListing("it is cut off"))
        } else if more && !place {
            Err(NotAListing("it says that there is more and not where"))
        } else {
            Ok(())
        }
    } else if body.starts_with("<EnumerationResults") {
        if is_closed(body, "</EnumerationResults>") { Ok(()) } else { Err(NotAListing("it is cut off")) }
    } else {
        Err(NotAListing("it is something else"))
    }
}

fn is_closed(body: &str, end: &str) -> bool {
    body.ends_with(end) || (body.ends_with("/>") && body.matches('<').count() == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn real_pages_pass() {
        for page in [
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<ListBucketResult xmlns=\"x\"><IsTruncated>false</IsTruncated></ListBucketResult>",
            "<ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken></ListBucketResult>\n",
            "<ListBucketResult/>",
            "\u{feff}<?xml version=\"1.0\"?><EnumerationResults><Blobs /><NextMarker /></EnumerationResults>",
        ] {
            assert_eq!(check(page.as_bytes()), Ok(()), "{page}");
        }
    }

    #[test]
    fn everything_else_is_an_error_and_not_an_empty_listing() {
        for page in [
            "",
            "<html><body>log in</body></html>",
            "<?xml version=\"1.0\"?><Error><Code>InternalError</Code></Error>",
            "<ListBucketResult><Contents>",
            "<ListBucketResult",
            "<EnumerationResults><Blobs>",
            "<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>",
            "<ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken></NextContinuationToken></ListBucketResult>",
            "{}",
        ] {
            assert!(check(page.as_bytes()).is_err(), "{page}");
        }
        assert!(check(&[0xff, 0xfe]).is_err());
    }

    #[test]
    fn only_listings_are_looked_at() {
        assert!(is_asked_by(&http::Method::GET, Some("list-type=2&prefix=a")));
        assert!(is_asked_by(&http::Method::GET, Some("restype=container&comp=list")));
        assert!(!is_asked_by(&http::Method::GET, None));
        assert!(!is_asked_by(&http::Method::PUT, Some("comp=list")));
        assert!(!is_asked_by(&http::Method::GET, Some("prefix=comp=list")));
    }
}
