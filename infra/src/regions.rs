//! Regions that lack a part of AWS that a stack needs, as AWS documents them.

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

/// Partitions without Lambda Function URLs and without Amazon Q Developer in chat applications, by how the names of their
/// regions begin. Sources: AWS GovCloud (US) user guide, "AWS Lambda"; Getting Started with Amazon Web Services in China,
/// "Amazon Lambda"; the regions that the administrator guide of Amazon Q Developer in chat applications lists.
const PARTITIONS_WITHOUT: [(&str, &str); 2] = [("cn-", "China"), ("us-gov-", "AWS GovCloud (US)")];

/// Regions that are older than that list, and not in it.
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

/// Whether a stack can be made in a region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fitness {
    /// It can.
    Fit,
    /// It cannot, for this reason.
    Unfit(String),
    /// Nobody here knows, as this says.
    Unknown(String),
}

impl Fitness {
    /// Looks up a region by its name, such as `eu-central-1`.
    pub fn of(region: &str) -> Self {
        if let Some((_, partition)) = PARTITIONS_WITHOUT.iter().find(|(start, _)| region.starts_with(start)) {
            return Self::Unfit(format!(
                "AWS documents that {partition} has neither Lambda Function URLs, which Tableau calls, nor Amazon Q Developer \
                 in chat applications, through which alerts reach Slack and Teams. A stack in {region} cannot work: use an \
                 account of the commercial partition"
            ));
        }
        if WITHOUT_FUNCTION_URLS.contains(&region) {
            return Self::Unfit(format!(
                "AWS documents that {region} has no Lambda Function URLs, and Tableau calls one. Choose another region with \
                 AWS_DEFAULT_REGION: any will do, since Tableau calls over the internet"
            ));
        }
        if WITH_FUNCTION_URLS.contains(&region) {
            return Self::Fit;
        }
        Self::Unknown(format!(
            "this release does not know whether {region} has Lambda Function URLs. AWS does not list it among the regions \
             without; if it has none, CloudFormation refuses the template for its AWS::Lambda::Url"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_region_is_fit_unfit_or_unknown() {
        for region in WITH_FUNCTION_URLS {
            assert_eq!(Fitness::of(region), Fitness::Fit, "{region}");
        }
        for region in WITHOUT_FUNCTION_URLS {
            assert!(matches!(Fitness::of(region), Fitness::Unfit(why) if why.contains(region)), "{region}");
        }
        for region in ["us-gov-east-1", "us-gov-west-1", "cn-north-1", "cn-northwest-1"] {
            let fitness = Fitness::of(region);
            assert!(matches!(&fitness, Fitness::Unfit(why) if why.contains("Amazon Q Developer")), "{fitness:?}");
        }
        for region in ["mx-central-1", "eusc-de-east-1", "us-iso-east-1", "eu-central-3"] {
            assert!(matches!(Fitness::of(region), Fitness::Unknown(why) if why.contains(region)), "{region}");
        }
    }
}
