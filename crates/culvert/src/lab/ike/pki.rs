//! A certificate authority for a laboratory, made by the command `openssl` in a directory.
//!
//! Keys are of ECDSA over P-256, made anew each time, valid for two days, and gone with the
//! directory.

use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;

use anyhow::Context;
use anyhow::Result;
use anyhow::ensure;

/// A certificate authority.
#[derive(Clone, Debug)]
pub struct Authority {
    directory: PathBuf,
}

/// A certificate, its key, and the authority that signed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The subject's name, which is its DNS name as well.
    pub name: String,
    /// File of the certificate (PEM).
    pub certificate: PathBuf,
    /// File of the key (PEM, PKCS #8).
    pub key: PathBuf,
    /// File of the authority's certificate (PEM).
    pub authority: PathBuf,
}

impl Authority {
    /// Makes an authority whose files lie in a directory.
    ///
    /// # Errors
    /// When `openssl` fails, with its words.
    pub fn new(directory: &Path) -> Result<Authority> {
        let directory = directory.join("authority");
        std::fs::create_dir_all(&directory)?;
        let authority = Authority { directory };
        authority.request(
            "ca",
            &[
                "-x509",
                "-days",
                "2",
                "-addext",
                "basicConstraints=critical,CA:TRUE",
                "-addext",
                "keyUsage=critical,keyCertSign,cRLSign",
            ],
        )?;
        Ok(authority)
    }

    /// Makes a key and a certificate for a DNS name.
    ///
    /// # Errors
    /// When `openssl` fails, with its words.
    pub fn certify(&self, name: &str) -> Result<Certificate> {
        let authority = self.file("ca.pem");
        let key = self.file("ca.key");
        let names = format!("subjectAltName=DNS:{name}");
        self.request(
            name,
            &[
                "-x509",
                "-days",
                "2",
                "-CA",
                &authority,
                "-CAkey",
                &key,
                "-addext",
                &names,
                "-addext",
                "basicConstraints=critical,CA:FALSE",
            ],
        )?;
        Ok(Certificate {
            name: name.to_owned(),
            certificate: self.directory.join(format!("{name}.pem")),
            key: self.directory.join(format!("{name}.key")),
            authority: self.directory.join("ca.pem"),
        })
    }

    fn file(&self, name: &str) -> String {
        self.directory.join(name).display().to_string()
    }

    fn request(&self, name: &str, more: &[&str]) -> Result<()> {
        let output = Command::new("openssl")
            .args(["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"])
            .args(["-sha256", "-subj", &format!("/O=culvert laboratory/CN={name}")])
            .args(["-keyout", &self.file(&format!("{name}.key"))])
            .args(["-out", &self.file(&format!("{name}.pem"))])
            .args(more)
            .stdin(Stdio::null())
            .output()
            .context("cannot run openssl (package openssl)")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "openssl: {}: {said}", output.status);
        Ok(())
    }
}
