//! The S3 bucket for the code and the template: one that the user names, or the tool's own.

use std::fmt::Write;

use anyhow::{Context, bail, ensure};
use serde_json::json;

use crate::{
    aws::{Aws, Location, has_code},
    steps::show,
};

/// Start of the name of the tool's own buckets. Account and region follow, since two accounts cannot have buckets of one
/// name.
const OWN_PREFIX: &str = "tableau-fanout-artifacts";

/// Marks an own bucket whose settings are complete.
const TAG: &str = "TagSet=[{Key=created-by,Value=tableau-fanout}]";

/// The most objects that one call deletes (S3 API reference, `DeleteObjects`).
const MAX_DELETED_AT_ONCE: usize = 1000;

/// A bucket that can be used for a deployment.
#[derive(Clone, Debug)]
pub struct Bucket {
    name: String,
    is_own: bool,
}

/// Name of the tool's own bucket for an account and a region.
fn own_name(location: &Location) -> String {
    format!("{OWN_PREFIX}-{}-{}", location.account, location.region)
}

impl Bucket {
    /// Checks the bucket `given`. Without one, finds or creates the tool's own.
    ///
    /// # Errors
    ///
    /// The bucket does not exist, is not the user's or is in another region, or cannot be created.
    pub async fn prepare(aws: &Aws, location: &Location, given: Option<&str>) -> anyhow::Result<Self> {
        let bucket = match given {
            Some(name) => Self { name: name.to_owned(), is_own: false },
            None => Self { name: own_name(location), is_own: true },
        };
        if bucket.is_own {
            bucket.prepare_own(aws, location).await?;
        } else {
            bucket.check_given(aws, location).await?;
        }
        Ok(bucket)
    }

    /// Finds the tool's own bucket for an account and a region.
    ///
    /// # Errors
    ///
    /// The bucket is not this account's, or the command fails.
    pub async fn find_own(aws: &Aws, location: &Location) -> anyhow::Result<Option<Self>> {
        let bucket = Self { name: own_name(location), is_own: true };
        let head = ["s3api", "head-bucket", "--bucket", &bucket.name, "--expected-bucket-owner", &location.account];
        match aws.run(&head).await {
            Ok(_) => Ok(Some(bucket)),
            Err(error) if has_code(&error, "404") => Ok(None),
            Err(error) => Err(error.context(format!(
                "the bucket {} cannot be used: it is another account's, or these credentials lack s3:ListBucket for it. Fix: \
                 name a bucket of yours with --bucket",
                bucket.name
            ))),
        }
    }

    /// Name of the bucket.
    pub fn name(&self) -> &str {
        &self.name
    }

    async fn check_given(&self, aws: &Aws, location: &Location) -> anyhow::Result<()> {
        let bucket = &self.name;
        let head = aws.json(&["s3api", "head-bucket", "--bucket", bucket]).await.with_context(|| {
            format!(
                "the bucket {bucket} does not exist or is not yours. Nothing was deployed. Fix: leave out --bucket to use a \
                 bucket of the tool's own, or create this one with `aws s3 mb s3://{bucket}`"
            )
        })?;
        // Some AWS CLIs do not return the region.
        let region = head["BucketRegion"].as_str().unwrap_or(&location.region);
        ensure!(
            region == location.region,
            "the bucket {bucket} is in {region}, but the stack would be in {}. Lambda reads code only from its own region. \
             Nothing was deployed. Fix: leave out --bucket, name another one, or choose the region with AWS_DEFAULT_REGION",
            location.region
        );
        Ok(())
    }

    /// Creates the bucket unless it exists, and completes its settings unless they are.
    async fn prepare_own(&self, aws: &Aws, location: &Location) -> anyhow::Result<()> {
        let Self { name, .. } = self;
        let nothing = || format!("the bucket {name} cannot be prepared. Nothing was deployed");
        if Self::find_own(aws, location).await.with_context(nothing)?.is_none() {
            let create = ["s3api", "create-bucket", "--bucket", name];
            let constraint = format!("LocationConstraint={}", location.region);
            // S3 does not accept the name of its first region here.
            let elsewhere: &[&str] =
                if location.region == "us-east-1" { &[] } else { &["--create-bucket-configuration", &constraint] };
            aws.run(&[&create[..], elsewhere].concat()).await.with_context(nothing)?;
            show(&format!("created the bucket {name} for the code: private and encrypted"));
        } else {
            show(&format!("the code goes to the bucket {name}"));
            match aws.run(&["s3api", "get-bucket-tagging", "--bucket", name]).await {
                Ok(_) => return Ok(()),
                // Its creation was interrupted.
                Err(error) if has_code(&error, "NoSuchTagSet") => {}
                Err(error) => return Err(error.context(nothing())),
            }
        }
        let mut all = String::new();
        for setting in ["BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"] {
            write!(all, "{setting}=true,")?;
        }
        let rule =
            json!({ "Rules": [{ "ApplyServerSideEncryptionByDefault": { "SSEAlgorithm": "AES256" } }] }).to_string();
        for (command, option, value) in [
            ("put-public-access-block", "--public-access-block-configuration", all.trim_end_matches(',')),
            ("put-bucket-encryption", "--server-side-encryption-configuration", &rule),
            ("put-bucket-tagging", "--tagging", TAG),
        ] {
            aws.run(&["s3api", command, "--bucket", name, option, value]).await.with_context(nothing)?;
        }
        Ok(())
    }

    /// Lists a stack's objects in the tool's own bucket. Of another bucket it lists none.
    ///
    /// # Errors
    ///
    /// The command fails.
    pub async fn objects_of(&self, aws: &Aws, stack: &str) -> anyhow::Result<Vec<String>> {
        if !self.is_own {
            return Ok(Vec::new());
        }
        let prefix = format!("{stack}/");
        let list = ["s3api", "list-objects-v2", "--bucket", &self.name, "--prefix", &prefix];
        let keys = aws.json(&[&list[..], &["--query", "Contents[].Key"]].concat()).await?;
        Ok(serde_json::from_value::<Option<_>>(keys)?.unwrap_or_default())
    }

    /// Deletes objects.
    ///
    /// # Errors
    ///
    /// A command fails, or S3 keeps an object.
    pub async fn delete(&self, aws: &Aws, keys: &[String]) -> anyhow::Result<()> {
        for some in keys.chunks(MAX_DELETED_AT_ONCE) {
            let objects: Vec<_> = some.iter().map(|key| json!({ "Key": key })).collect();
            let objects = json!({ "Objects": objects, "Quiet": true }).to_string();
            let answer = aws.json(&["s3api", "delete-objects", "--bucket", &self.name, "--delete", &objects]).await?;
            if let Some(errors) = answer["Errors"].as_array().filter(|errors| !errors.is_empty()) {
                bail!("S3 did not delete {} objects of the bucket {}", errors.len(), self.name);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_an_own_bucket_is_one_that_s3_accepts_in_every_region() {
        for region in ["us-east-1", "ap-northeast-3", "ap-southeast-7", "us-gov-west-1", "cn-northwest-1"] {
            let name = own_name(&Location { account: "123456789012".to_owned(), region: region.to_owned() });
            assert_eq!(name, format!("tableau-fanout-artifacts-123456789012-{region}"));
            assert!(name.len() <= 63, "{name}");
        }
    }
}
