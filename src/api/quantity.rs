//! Kubernetes quantities in bytes: reading `512Mi`, writing the shortest exact form.

/// Binary suffixes, largest first.
const BINARY: [(&str, u32); 6] = [
    ("Ei", 60),
    ("Pi", 50),
    ("Ti", 40),
    ("Gi", 30),
    ("Mi", 20),
    ("Ki", 10),
];

/// Decimal suffixes and their powers of ten. `m` is a thousandth.
const DECIMAL: [(&str, i32); 9] = [
    ("E", 18),
    ("P", 15),
    ("T", 12),
    ("G", 9),
    ("M", 6),
    ("k", 3),
    ("m", -3),
    ("u", -6),
    ("n", -9),
];

/// Reads a quantity as whole bytes, rounded up.
///
/// # Errors
/// What a quantity must look like, when `text` is none or exceeds 2^63 - 1.
pub fn bytes(text: &str) -> Result<i64, String> {
    read(text, 1.0).ok_or_else(|| {
        format!("'{text}' is no quantity: write a number of bytes such as 1073741824, 512Mi or 1Gi")
    })
}

/// Reads a quantity as whole thousandths (of a CPU), rounded up.
///
/// # Errors
/// As [`bytes`].
pub fn millis(text: &str) -> Result<i64, String> {
    read(text, 1000.0).ok_or_else(|| {
        format!("'{text}' is no quantity: write a number of CPUs such as 2, 0.5 or 500m")
    })
}

/// Reads a quantity as whole parts of one `scale`th.
fn read(text: &str, scale: f64) -> Option<i64> {
    let trimmed = text.trim();
    let (number, factor) = BINARY
        .iter()
        .find_map(|(suffix, shift)| {
            trimmed
                .strip_suffix(suffix)
                .map(|n| (n, 2f64.powi(*shift as i32)))
        })
        .or_else(|| {
            DECIMAL.iter().find_map(|(suffix, power)| {
                trimmed
                    .strip_suffix(suffix)
                    .map(|n| (n, 10f64.powi(*power)))
            })
        })
        .unwrap_or((trimmed, 1.0));
    let factor = factor * scale;
    if number.is_empty() || !number.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    // Whole numbers are read exactly; only fractions and exponents take the way through floating point.
    let exact = number.parse::<i64>().ok().and_then(|n| {
        let whole = factor as i64;
        (factor >= 1.0 && whole as f64 == factor)
            .then(|| n.checked_mul(whole))
            .flatten()
    });
    if exact.is_some() {
        return exact;
    }
    let value = number.parse::<f64>().ok()? * factor;
    if !value.is_finite() || value < 0.0 || value >= i64::MAX as f64 {
        return None;
    }
    Some(value.ceil() as i64)
}

/// Writes bytes with the largest binary suffix that divides them: 1610612736 is `1536Mi`.
pub fn format(bytes: i64) -> String {
    let bytes = bytes.max(0);
    if bytes == 0 {
        return "0".into();
    }
    BINARY
        .iter()
        .find(|(_, shift)| bytes % (1i64 << shift) == 0)
        .map(|(suffix, shift)| format!("{}{suffix}", bytes >> shift))
        .unwrap_or_else(|| bytes.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_kubernetes_reads() {
        for (text, expected) in [
            ("0", 0),
            ("1", 1),
            ("1Ki", 1024),
            ("1.5Gi", 1_610_612_736),
            ("1G", 1_000_000_000),
            ("1500m", 2),
            ("64Mi", 67_108_864),
            ("1e3", 1000),
            ("7Ei", 7 << 60),
            ("9223372036854775807", i64::MAX),
        ] {
            assert_eq!(bytes(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn reads_cpus_in_thousandths() {
        for (text, expected) in [
            ("0", 0),
            ("2", 2000),
            ("500m", 500),
            ("0.1", 100),
            ("1.5", 1500),
            ("3940m", 3940),
            ("1k", 1_000_000),
            ("250u", 1),
            ("100000n", 1),
        ] {
            assert_eq!(millis(text), Ok(expected), "{text}");
        }
        assert!(millis("two").unwrap_err().contains("500m"));
    }

    #[test]
    fn refuses_what_is_none() {
        for text in ["", "lots", "-1", "1GB", "9Ei", "Gi", "nan", "inf", ".5Gi"] {
            assert!(
                bytes(text).unwrap_err().contains("is no quantity"),
                "{text}"
            );
        }
    }

    #[test]
    fn writes_the_shortest_exact_form() {
        for (value, expected) in [
            (0, "0"),
            (1000, "1000"),
            (1 << 30, "1Gi"),
            (1536 << 20, "1536Mi"),
            (-5, "0"),
        ] {
            assert_eq!(format(value), expected);
        }
    }
}
