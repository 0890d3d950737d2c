//! Context of refreshes: the refreshed resources, their owners, and the tasks that refresh them.

use std::collections::{BTreeMap, BTreeSet};

use shared::refreshes::{
    context::{RefreshTask, ResourceContext, ResourceKey, UserContext},
    job::RefreshedKind,
};

use crate::{
    error::TableauError,
    retry::RetryPolicy,
    session::{Request, Session},
    wire::{
        content::{read_resource, read_user},
        list::is_identifier,
        tasks::read_tasks,
    },
};

impl Session<'_> {
    /// Reads a workbook or data source. Members that are missing or cannot be read are left out; all of them, if the identifier
    /// cannot be one of Tableau's.
    ///
    /// # Errors
    ///
    /// As for every call, without Tableau's explanation, which may name the owner. A deleted resource is
    /// [`TableauError::is_local`].
    pub async fn resource(&mut self, kind: RefreshedKind, luid: &str) -> Result<ResourceContext, TableauError> {
        if !is_identifier(luid) {
            return Ok(ResourceContext::default());
        }
        let collection = match kind {
            RefreshedKind::Datasource => "datasources",
            RefreshedKind::Workbook => "workbooks",
        };
        let answer = self.call(get(&[collection, luid])).await.map_err(TableauError::without_text)?;
        let hosts = self.hosts();
        self.read(&answer, |value| read_resource(value, kind, &hosts))
    }

    /// Reads a user. Members that are missing or cannot be read are left out, as for a resource.
    ///
    /// # Errors
    ///
    /// As for [`Session::resource`].
    pub async fn user(&mut self, id: &str) -> Result<UserContext, TableauError> {
        if !is_identifier(id) {
            return Ok(UserContext::default());
        }
        let answer = self.call(get(&["users", id])).await.map_err(TableauError::without_text)?;
        self.read(&answer, read_user)
    }

    /// Reads the refresh tasks of the wanted resources. Tableau lists the tasks of the whole site. The list is filtered while
    /// it is received, up to 16 MiB, which hold more than 40,000 tasks. A longer list is an error.
    ///
    /// # Errors
    ///
    /// As for [`Session::resource`].
    pub async fn extract_tasks(
        &mut self,
        wanted: &BTreeSet<ResourceKey>,
    ) -> Result<BTreeMap<ResourceKey, RefreshTask>, TableauError> {
        let luids = wanted.iter().map(|(_, luid)| luid.clone()).collect();
        let request = Request { wanted: Some(&luids), ..get(&["tasks", "extractRefreshes"]) };
        let answer = self.call(request).await.map_err(TableauError::without_text)?;
        self.read(&answer, |value| read_tasks(value, wanted))
    }
}

fn get<'a>(path: &'a [&'a str]) -> Request<'a> {
    Request { retry: RetryPolicy::JOBS, ..Request::get(path) }
}
