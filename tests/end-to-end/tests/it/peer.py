"""Drives a Tableau server with Tableau's own client: python3 peer.py SERVER SITE TOKEN_NAME TOKEN_SECRET"""

import sys

import tableauserverclient as tsc

address, site, token_name, token_secret = sys.argv[1:]
server = tsc.Server(address)
server.use_server_version()
assert server.version == "3.27", server.version

try:
    server.auth.sign_in(tsc.PersonalAccessTokenAuth(token_name, "wrong", site))
except tsc.FailedSignInError as error:
    assert error.code == "401001", error
else:
    raise AssertionError("signed in with a wrong secret")

with server.auth.sign_in(tsc.PersonalAccessTokenAuth(token_name, token_secret, site)):
    webhooks, _ = server.webhooks.get()
    assert webhooks == [], webhooks

    wanted = tsc.WebhookItem()
    wanted.name = 'a "quoted" & <odd> name'
    wanted.event = "workbook-created"
    wanted.url = "https://receiver.example/hooks?a=1&b=2"
    made = server.webhooks.create(wanted)
    assert (made.name, made.event, made.url) == (wanted.name, "workbook-created", wanted.url), made
    assert made.owner_id

    webhooks, _ = server.webhooks.get()
    assert [webhook.id for webhook in webhooks] == [made.id], webhooks
    assert server.webhooks.get_by_id(made.id).name == wanted.name

    result = server.webhooks.test(made.id)
    assert result.status_code == 200 and b'status="200"' in result.content, result.content

    for refused in ("http://receiver.example/", "receiver.example"):
        wanted.url = refused
        try:
            server.webhooks.create(wanted)
        except tsc.ServerResponseError as error:
            assert error.code == "400000", error
        else:
            raise AssertionError(f"a webhook to {refused} was made")

    server.webhooks.delete(made.id)
    webhooks, _ = server.webhooks.get()
    assert webhooks == [], webhooks
    try:
        server.webhooks.get_by_id(made.id)
    except tsc.ServerResponseError as error:
        assert error.code == "400113", error
    else:
        raise AssertionError("a deleted webhook was found")

    jobs, pages = server.jobs.get()
    assert [(job.status, job.type, job.title) for job in jobs] == [("Failed", "refresh_extracts", "A & B")], jobs
    assert (pages.page_number, pages.page_size, pages.total_available) == (1, 100, 1), pages
    job = server.jobs.get_by_id(jobs[0].id)
    assert (job.finish_code, job.workbook_id, job.workbook_name) == (1, "99", "A & B"), job
    assert job.notes == ["Login failed for user 'x'."], job.notes
    for status, count in (("Failed", 1), ("Success", 0)):
        options = tsc.RequestOptions()
        failed = tsc.Filter(tsc.RequestOptions.Field.Status, tsc.RequestOptions.Operator.Equals, status)
        options.filter.add(failed)
        found, _ = server.jobs.get(req_options=options)
        assert len(found) == count, found

print("all as expected")
