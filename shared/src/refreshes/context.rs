//! Context of a failed refresh: the resource with its page, project and owner, and the task that refreshes it.
//!
//! All texts are Tableau's and untrusted: names may hold any character.

use std::fmt;

use serde::Serialize;
use time::OffsetDateTime;
use url::Url;

use crate::refreshes::job::RefreshedKind;

/// The failures in a row after which Tableau suspends a refresh task. Administrators of a Tableau Server can change it.
pub const FAILURES_UNTIL_SUSPENSION: u32 = 5;

/// The key of a resource of one site: its kind and Tableau's identifier.
pub type ResourceKey = (RefreshedKind, String);

/// A workbook or data source, as far as Tableau shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResourceContext {
    /// Its name.
    pub name: Option<String>,
    /// Its page, on the host of its Tableau server.
    pub webpage_url: Option<Url>,
    /// The project that it is in.
    pub project: Option<Project>,
    /// Tableau's identifier of its owner.
    pub owner_id: Option<String>,
    /// Its first tags.
    pub tags: Vec<String>,
}

/// All that Tableau shows of a failed refresh besides its job. The rest is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FailureContext {
    /// The resource.
    pub resource: ResourceContext,
    /// Its owner, as far as [`OwnerDetails`] allows.
    pub owner: Option<Owner>,
    /// The tasks that refresh it.
    pub task: RefreshTask,
    /// The page with the refresh tasks of its site.
    pub history_url: Option<Url>,
}

impl FailureContext {
    /// Returns the address of the resource's page.
    pub(crate) fn resource_url(&self) -> Option<&str> {
        self.resource.webpage_url.as_ref().map(Url::as_str)
    }

    /// Returns the name of the project.
    pub(crate) fn project_name(&self) -> Option<&str> {
        self.resource.project.as_ref().map(|project| project.name.as_str())
    }

    /// Returns the name of the owner.
    pub(crate) fn owner_name(&self) -> Option<&str> {
        self.owner.as_ref().and_then(|owner| owner.name.as_deref())
    }
}

/// An owner in events and alerts. Debug output has no e-mail address.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct Owner {
    /// Tableau's identifier.
    pub id: String,
    /// The name, which is no e-mail address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The e-mail address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
}

/// The details of owners in events and alerts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OwnerDetails {
    /// None, and no owner is read.
    None,
    /// Identifier and name.
    #[default]
    Name,
    /// The e-mail address, too.
    Email,
}

/// A project.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Project {
    /// Tableau's identifier.
    pub id: String,
    /// Its name.
    pub name: String,
}

/// A user of Tableau. Debug output has no e-mail address.
///
/// ```
/// use shared::refreshes::context::UserContext;
///
/// let owner = UserContext {
///     name: Some("grace@example.com".to_owned()),
///     full_name: Some("Grace Hopper".to_owned()),
///     email: Some("grace@example.com".to_owned()),
/// };
/// assert_eq!(owner.name_without_address(), Some("Grace Hopper"));
/// assert!(!format!("{owner:?}").contains("example.com"));
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct UserContext {
    /// The name for signing in. On Tableau Cloud that is an e-mail address.
    pub name: Option<String>,
    /// The name that people see. Some users have an e-mail address here, too.
    pub full_name: Option<String>,
    /// The e-mail address, which Tableau shows of some users.
    pub email: Option<String>,
}

/// The tasks that refresh one resource.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RefreshTask {
    /// The next run of a task that is not suspended.
    pub next_run_at: Option<OffsetDateTime>,
    /// The highest number of failures in a row; zero only if each task has none.
    pub consecutive_failures: Option<u32>,
    /// Whether a task is suspended. Tableau does not write it: it follows from the failures, or on Tableau Server from the
    /// schedule's state.
    pub is_suspended: Option<bool>,
}

impl UserContext {
    /// Returns the full name or the name, whichever is no e-mail address.
    pub fn name_without_address(&self) -> Option<&str> {
        let names = [&self.full_name, &self.name].into_iter().flatten();
        names.map(String::as_str).find(|name| !name.contains('@'))
    }
}

impl fmt::Debug for UserContext {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |name: &Option<String>| {
            name.as_ref().map(|name| if name.contains('@') { "[redacted]".to_owned() } else { name.clone() })
        };
        let Self { name, full_name, email } = self;
        formatter
            .debug_struct("UserContext")
            .field("name", &shown(name))
            .field("full_name", &shown(full_name))
            .field("email", &email.as_ref().map(|_| "[redacted]"))
            .finish()
    }
}

impl OwnerDetails {
    /// Reads the setting: `none`, `name` or `email`.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "none" => Some(Self::None),
            "name" => Some(Self::Name),
            "email" => Some(Self::Email),
            _ => None,
        }
    }

    /// Returns what may be shown of an owner.
    pub fn owner(self, id: &str, user: &UserContext) -> Option<Owner> {
        // On Tableau Cloud the name for signing in is the address.
        let address = || [&user.email, &user.name].into_iter().flatten().find(|text| text.contains('@')).cloned();
        (self != Self::None).then(|| Owner {
            id: id.to_owned(),
            name: user.name_without_address().map(str::to_owned),
            email: if self == Self::Email { address() } else { None },
        })
    }
}

impl fmt::Debug for Owner {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, name, email } = self;
        let email = email.as_ref().map(|_| "[redacted]");
        formatter.debug_struct("Owner").field("id", id).field("name", name).field("email", &email).finish()
    }
}

impl RefreshTask {
    /// Returns the task with these members. `is_schedule_suspended` is `None` if the schedule has no state.
    pub fn new(
        next_run_at: Option<OffsetDateTime>,
        consecutive_failures: Option<u32>,
        is_schedule_suspended: Option<bool>,
    ) -> Self {
        let has_failed_too_often = consecutive_failures.map(|failures| failures >= FAILURES_UNTIL_SUSPENSION);
        // The state of an active schedule says nothing about one of its tasks.
        let is_suspended = is_schedule_suspended.filter(|is_suspended| *is_suspended).or(has_failed_too_often);
        // Tableau writes the next run of the schedule, which passes over a suspended task.
        Self { next_run_at: next_run_at.filter(|_| is_suspended != Some(true)), consecutive_failures, is_suspended }
    }

    /// Returns both tasks of a resource as one.
    #[must_use]
    pub fn merged(self, other: Self) -> Self {
        let Self { next_run_at, consecutive_failures, is_suspended } = self;
        Self {
            next_run_at: next_run_at.into_iter().chain(other.next_run_at).min(),
            consecutive_failures: match (consecutive_failures, other.consecutive_failures) {
                (Some(0), None) | (None, Some(0)) => None,
                (own, other) => own.max(other),
            },
            is_suspended: if [is_suspended, other.is_suspended].contains(&Some(true)) {
                Some(true)
            } else {
                is_suspended.and(other.is_suspended)
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn a_user_is_shown_without_e_mail_address() {
        let user = |name: &str, full_name: &str| UserContext {
            name: Some(name.to_owned()),
            full_name: Some(full_name.to_owned()).filter(|name| !name.is_empty()),
            email: Some("grace@example.com".to_owned()),
        };
        for (user, shown) in [
            (user("grace", "Grace Hopper"), Some("Grace Hopper")),
            (user("grace", ""), Some("grace")),
            (user("grace", "grace@example.com"), Some("grace")),
            (user("grace@example.com", "grace@example.com"), None),
            (UserContext::default(), None),
        ] {
            assert_eq!(user.name_without_address(), shown);
            assert!(!format!("{user:?}").contains('@'), "{user:?}");
        }
    }

    #[test]
    fn a_task_is_suspended_by_its_failures_or_its_schedule_and_has_then_no_next_run() {
        let at = Some(datetime!(2026-05-21 08:00 UTC));
        for (failures, schedule, is_suspended) in [
            (Some(4), None, Some(false)),
            (Some(5), None, Some(true)),
            (Some(6), Some(false), Some(true)),
            (Some(0), Some(true), Some(true)),
            (None, Some(true), Some(true)),
            (None, Some(false), None),
            (None, None, None),
        ] {
            let task = RefreshTask::new(at, failures, schedule);
            assert_eq!(task.is_suspended, is_suspended, "{failures:?} {schedule:?}");
            assert_eq!(task.next_run_at.is_none(), is_suspended == Some(true), "{failures:?} {schedule:?}");
        }
    }

    #[test]
    fn several_tasks_have_the_soonest_run_and_the_highest_count() {
        let task = |hour: Option<u8>, failures| {
            let at = hour.map(|hour| datetime!(2026-05-21 00:00 UTC) + time::Duration::hours(hour.into()));
            RefreshTask::new(at, failures, None)
        };
        for (one, another, merged) in [
            (task(Some(8), Some(1)), task(Some(7), Some(0)), task(Some(7), Some(1))),
            (task(Some(8), None), task(None, None), task(Some(8), None)),
            (task(None, Some(1)), task(Some(9), Some(3)), task(Some(9), Some(3))),
            (task(Some(8), Some(0)), task(Some(9), Some(0)), task(Some(8), Some(0))),
        ] {
            assert_eq!((one.merged(another), another.merged(one)), (merged, merged));
        }
        let suspended = task(Some(7), Some(5)).merged(task(Some(9), Some(0)));
        assert_eq!(suspended.next_run_at, task(Some(9), None).next_run_at);
        assert_eq!((suspended.consecutive_failures, suspended.is_suspended), (Some(5), Some(true)));
        let unknown = task(None, Some(0)).merged(task(None, None));
        assert_eq!((unknown.is_suspended, unknown.consecutive_failures), (None, None));
        assert_eq!(task(None, None).merged(task(None, Some(5))).is_suspended, Some(true));
    }
}
