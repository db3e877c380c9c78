//! The signature of a request: `t=<seconds>,v1=<HMAC-SHA-256 of "<seconds>.<body>" in hex>`, the scheme of Stripe's webhooks. The
//! time is signed, so a receiver can refuse an old request that somebody sends again.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::config::Secret;
use foretell_streams::time::WallTime;

/// The value of the header `Foretell-Signature`.
pub(super) fn of(body: &[u8], secret: &Secret, sent_at: WallTime) -> String {
    let seconds = sent_at.0.div_euclid(1000);
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.reveal().as_bytes())
        .expect("HMAC takes keys of every length");
    mac.update(format!("{seconds}.").as_bytes());
    mac.update(body);
    format!("t={seconds},v1={}", hex::encode(mac.finalize().into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_hmac_of_the_time_and_the_body() {
        // printf '1795910400.{"a":1}' | openssl dgst -sha256 -hmac hunter2
        let expected =
            "t=1795910400,v1=ac203a5a0969d6bb84cce6d5d5d48e8e2b49825cb48a98a12b34cf4b1ff71a48";
        let found = of(b"{\"a\":1}", &Secret::new("hunter2"), WallTime(1_795_910_400_999));
        assert_eq!(found, expected);
    }
}
