//! Regions in which a stack cannot work, as AWS documents them.

use crate::environment::REGION as LOCAL;

/// Regions without Lambda Function URLs. Source: AWS Lambda developer guide, "Creating and managing Lambda function
/// URLs", as of February 2026.
const WITHOUT_FUNCTION_URLS: [&str; 11] = [
    "ap-east-2",
    "ap-south-2",
    "ap-southeast-4",
    "ap-southeast-5",
    "ap-southeast-6",
    "ap-southeast-7",
    "ca-west-1",
    "eu-central-2",
    "eu-south-2",
    "il-central-1",
    "me-central-1",
];

/// Partitions without Lambda Function URLs and without Amazon Q Developer in chat applications, by the prefix of their
/// regions. Sources: AWS GovCloud (US) user guide, "AWS Lambda"; Getting Started with Amazon Web Services in China,
/// "Amazon Lambda"; the regions that the administrator guide of Amazon Q Developer in chat applications lists.
const PARTITIONS_WITHOUT: [(&str, &str); 2] = [("cn-", "China"), ("us-gov-", "AWS GovCloud (US)")];

/// Regions that are older than the list of [`WITHOUT_FUNCTION_URLS`] and not in it.
const WITH_FUNCTION_URLS: [&str; 22] = [
    "af-south-1",
    "ap-east-1",
    "ap-northeast-1",
    "ap-northeast-2",
    "ap-northeast-3",
    "ap-south-1",
    "ap-southeast-1",
    "ap-southeast-2",
    "ap-southeast-3",
    "ca-central-1",
    "eu-central-1",
    "eu-north-1",
    "eu-south-1",
    "eu-west-1",
    "eu-west-2",
    "eu-west-3",
    "me-south-1",
    "sa-east-1",
    "us-east-1",
    "us-east-2",
    "us-west-1",
    "us-west-2",
];

/// Whether a stack can work in a region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Support {
    /// It can.
    Supported,
    /// It cannot, for this reason.
    Unsupported(String),
    /// This release does not know, as the text explains.
    Unknown(String),
}

impl Support {
    /// Looks up a region by its name, such as `eu-central-1`.
    pub fn of(region: &str) -> Self {
        if let Some((_, partition)) = PARTITIONS_WITHOUT.iter().find(|(prefix, _)| region.starts_with(prefix)) {
            return Self::Unsupported(format!(
                "a stack cannot work in {region}. {partition} has no Lambda Function URLs, which Tableau calls, and no \
                 Amazon Q Developer in chat applications, which delivers alerts to Slack and Teams. Fix: use an account of \
                 the commercial partition"
            ));
        }
        if WITHOUT_FUNCTION_URLS.contains(&region) {
            return Self::Unsupported(format!(
                "a stack cannot work in {region}. The region has no Lambda Function URLs, which Tableau calls. Fix: choose \
                 another region with AWS_DEFAULT_REGION. Any will do, since Tableau calls over the internet"
            ));
        }
        if region == LOCAL || WITH_FUNCTION_URLS.contains(&region) {
            return Self::Supported;
        }
        Self::Unknown(format!(
            "this release does not know whether {region} has Lambda Function URLs. If it has none, CloudFormation rejects \
             the resource AWS::Lambda::Url"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_region_is_supported_unsupported_or_unknown() {
        for region in WITH_FUNCTION_URLS.into_iter().chain([LOCAL]) {
            assert_eq!(Support::of(region), Support::Supported, "{region}");
        }
        for region in WITHOUT_FUNCTION_URLS {
            assert!(matches!(Support::of(region), Support::Unsupported(why) if why.contains(region)), "{region}");
        }
        for region in ["us-gov-east-1", "us-gov-west-1", "cn-north-1", "cn-northwest-1"] {
            let support = Support::of(region);
            assert!(matches!(&support, Support::Unsupported(why) if why.contains("Amazon Q Developer")), "{support:?}");
        }
        for region in ["mx-central-1", "eusc-de-east-1", "us-iso-east-1", "eu-central-3"] {
            assert!(matches!(Support::of(region), Support::Unknown(why) if why.contains(region)), "{region}");
        }
    }
}
