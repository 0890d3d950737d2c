//! Workbooks, data sources and users in Tableau's JSON.

use serde_json::Value;
use shared::refreshes::{
    context::{Project, ResourceContext, UserContext},
    job::RefreshedKind,
};
use url::Url;

use crate::{
    body::Unreadable,
    wire::list::{identifier, items},
};

/// The most characters kept of a name or tag: far more than people read.
pub(crate) const MAX_NAME_CHARACTERS: usize = 500;

/// The most tags kept of a resource.
pub(crate) const MAX_TAGS: usize = 20;

/// The most bytes of the address of a page.
const MAX_URL_BYTES: usize = 2000;

/// Reads a workbook or data source. The `hosts` are those of its server. A member that cannot be read is left out.
pub(crate) fn read_resource(
    answer: &Value,
    kind: RefreshedKind,
    hosts: &[Option<String>],
) -> Result<ResourceContext, Unreadable> {
    let resource = &answer[kind.as_str()];
    if !resource.is_object() {
        return Err("it holds no workbook or data source");
    }
    let project = &resource["project"];
    let tags = items(&resource["tags"], "tag").unwrap_or_default();
    Ok(ResourceContext {
        name: name(&resource["name"]),
        webpage_url: resource["webpageUrl"].as_str().and_then(|url| page(url, hosts)),
        project: identifier(&project["id"])
            .zip(name(&project["name"]))
            .map(|(id, name)| Project { id: id.to_owned(), name }),
        owner_id: identifier(&resource["owner"]["id"]).map(str::to_owned),
        tags: tags.iter().filter_map(|tag| name(&tag["label"])).take(MAX_TAGS).collect(),
    })
}

/// Reads a user. A member that cannot be read is left out.
pub(crate) fn read_user(answer: &Value) -> Result<UserContext, Unreadable> {
    let user = &answer["user"];
    if !user.is_object() {
        return Err("it holds no user");
    }
    Ok(UserContext { name: name(&user["name"]), full_name: name(&user["fullName"]), email: name(&user["email"]) })
}

/// Reads a name, and truncates a long one.
fn name(value: &Value) -> Option<String> {
    let text = value.as_str().filter(|text| !text.trim().is_empty())?;
    let end = text.char_indices().nth(MAX_NAME_CHARACTERS).map(|(end, _)| end);
    Some(end.map_or_else(|| text.to_owned(), |end| format!("{}…", &text[..end])))
}

/// Reads the address of a page, which people open: only one on these hosts, and without credentials.
fn page(text: &str, hosts: &[Option<String>]) -> Option<Url> {
    let url: Url = Some(text).filter(|text| text.len() <= MAX_URL_BYTES)?.parse().ok()?;
    let is_page = ["https", "http"].contains(&url.scheme()) && url.username().is_empty() && url.password().is_none();
    let is_of_server = hosts.iter().flatten().any(|host| url.host_str() == Some(host));
    Some(url).filter(|_| is_page && is_of_server)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn hosts() -> [Option<String>; 2] {
        ["10ax.online.tableau.com", "dub01.online.tableau.com"].map(|host| Some(host.to_owned()))
    }

    fn resource(change: &Value) -> ResourceContext {
        let mut workbook = json!({ "id": "w1", "name": "Sales", "contentUrl": "Sales", "project": { "id": "p1", "name": "Finance" },
            "webpageUrl": "https://10ax.online.tableau.com/#/site/marketing/workbooks/17/views", "owner": { "id": "u1" },
            "tags": { "tag": [{ "label": "daily" }, { "label": "gold" }] } });
        for (member, value) in change.as_object().into_iter().flatten() {
            workbook[member] = value.clone();
        }
        read_resource(&json!({ "workbook": workbook }), RefreshedKind::Workbook, &hosts()).expect("a workbook")
    }

    #[test]
    fn a_resource_is_read_with_its_context() {
        let expected = ResourceContext {
            name: Some("Sales".to_owned()),
            webpage_url: "https://10ax.online.tableau.com/#/site/marketing/workbooks/17/views".parse().ok(),
            project: Some(Project { id: "p1".to_owned(), name: "Finance".to_owned() }),
            owner_id: Some("u1".to_owned()),
            tags: vec!["daily".to_owned(), "gold".to_owned()],
        };
        assert_eq!(resource(&json!({})), expected);
        let datasource = json!({ "datasource": { "name": "Sales" } });
        let read = |answer: &Value, kind| read_resource(answer, kind, &hosts());
        let named = ResourceContext { name: Some("Sales".to_owned()), ..ResourceContext::default() };
        assert_eq!(read(&datasource, RefreshedKind::Datasource), Ok(named));
        for other in [datasource, json!({}), json!({ "workbook": null }), json!({ "workbook": [] }), json!(null)] {
            assert!(read(&other, RefreshedKind::Workbook).is_err(), "{other}");
        }
    }

    #[test]
    fn a_member_that_cannot_be_read_is_left_out() {
        let nothing = json!({ "name": null, "webpageUrl": 7, "project": [], "owner": "u1", "tags": "daily" });
        assert_eq!(resource(&nothing), ResourceContext::default());
        for project in
            [json!({ "id": "p1" }), json!({ "name": "Finance" }), json!({ "id": "../p", "name": "F" }), json!({})]
        {
            assert_eq!(resource(&json!({ "project": project })).project, None, "{project}");
        }
        for id in ["", "..", "a/b", "a b", "é"] {
            assert_eq!(resource(&json!({ "owner": { "id": id } })).owner_id, None, "{id}");
        }
        for (tags, read) in [
            (json!({}), ""),
            (json!(null), ""),
            (json!([{ "label": "a" }, null, {}, { "label": " " }, { "label": 7 }, { "label": "b" }]), "a b"),
            (json!({ "tag": { "label": "a" } }), "a"),
        ] {
            assert_eq!(resource(&json!({ "tags": tags })).tags.join(" "), read, "{tags}");
        }
    }

    #[test]
    fn only_a_page_on_the_own_host_is_read() {
        let page = |url: &str| resource(&json!({ "webpageUrl": url })).webpage_url.map(String::from);
        for url in ["https://10ax.online.tableau.com/#/x", "http://dub01.online.tableau.com/"] {
            assert_eq!(page(url).as_deref(), Some(url));
        }
        assert_eq!(page("HTTPS://10AX.online.tableau.com/").as_deref(), Some("https://10ax.online.tableau.com/"));
        for url in [
            "https://evil.example/#/site/marketing",
            "https://10ax.online.tableau.com.evil.example/",
            "https://10ax.online.tableau.com@evil.example/",
            "https://evil@10ax.online.tableau.com/",
            "https://:password@10ax.online.tableau.com/",
            "//10ax.online.tableau.com/",
            "/#/site/marketing",
            "javascript://10ax.online.tableau.com/%0aalert(1)",
            "file://10ax.online.tableau.com/etc/passwd",
            "",
        ] {
            assert_eq!(page(url), None, "{url}");
        }
        assert_eq!(page(&format!("https://10ax.online.tableau.com/{}", "x".repeat(MAX_URL_BYTES))), None);
    }

    #[test]
    fn names_are_kept_as_they_are_within_their_length() {
        for text in ["<!channel>", "\u{202e}evil", "a\n\u{0}b", "\"\\", "📈\u{ffff}", " Sales "] {
            let read =
                resource(&json!({ "name": text, "tags": [{ "label": text }], "project": { "id": "1", "name": text } }));
            let names = [read.name.as_deref(), read.tags.first().map(String::as_str)];
            assert_eq!(names, [Some(text); 2]);
            assert_eq!(read.project.map(|project| project.name).as_deref(), Some(text));
        }
        let long = resource(&json!({ "name": "é".repeat(9000), "tags": vec![json!({ "label": "t" }); 1000] }));
        assert_eq!(long.name.map(|name| name.chars().count()), Some(MAX_NAME_CHARACTERS + 1));
        assert_eq!(long.tags.len(), MAX_TAGS);
    }

    #[test]
    fn a_user_is_read_as_far_as_tableau_shows_it() {
        let user = read_user(&json!({ "user": { "id": "u1", "name": "grace@example.com", "fullName": "Grace Hopper",
            "email": "grace@example.com", "siteRole": "Creator" } }));
        let name = |text: &str| Some(text.to_owned());
        let expected = UserContext {
            name: name("grace@example.com"),
            full_name: name("Grace Hopper"),
            email: name("grace@example.com"),
        };
        assert_eq!(user, Ok(expected));
        assert_eq!(read_user(&json!({ "user": { "name": "", "email": null } })), Ok(UserContext::default()));
        for other in [json!({}), json!({ "user": null }), json!({ "user": "grace" }), json!([])] {
            assert_eq!(read_user(&other), Err("it holds no user"), "{other}");
        }
    }
}
