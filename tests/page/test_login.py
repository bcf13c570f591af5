from __future__ import annotations

import pytest
from fastapi import Response

from bacalhau_p2p.page import login


def test_the_cookie_hides_the_token_and_belongs_to_it_alone():
    response = Response()
    login.log_in(response, "secret")
    cookie = response.headers["set-cookie"]
    assert "secret" not in cookie
    assert {"HttpOnly", "SameSite=strict", "Path=/"} <= {part.strip() for part in cookie.split(";")}
    sent = cookie.partition(";")[0]
    assert login.session_in(f"other=1; {sent}") == login.session_of("secret")
    assert login.session_in(sent) != login.session_of("another secret")


@pytest.mark.parametrize("cookies", ["", "bacalhau_p2p_session=", "x", "x=bacalhau_p2p_session"])
def test_no_other_cookie_is_a_session(cookies):
    assert login.session_in(cookies) == ""


@pytest.mark.parametrize(
    ("target", "goes_to"),
    [
        ("/jobs?state=Failed", "/jobs?state=Failed"),
        ("", "/"),
        ("//evil.example/", "/"),
        ("/\\evil.example", "/"),
        ("https://evil.example/", "/"),
        ("http://[", "/"),
        ("/jobs\r\nSet-Cookie: a=b", "/"),
    ],
)
def test_logging_in_leads_only_to_this_site(target, goes_to):
    assert login.safe_target(target) == goes_to
