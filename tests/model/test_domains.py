"""Which hosts the domains of a job mean."""

from __future__ import annotations

import pytest
from pydantic import TypeAdapter, ValidationError

from bacalhau_p2p.model.domains import Domain, is_allowed, is_covered, normal_host

parse = TypeAdapter(Domain).validate_python


@pytest.mark.parametrize(
    ("text", "domain"),
    [
        ("example.com", "example.com"),
        (" Example.COM. ", "example.com."),
        (".Example.com", ".example.com"),
        ("*.example.com", "*.example.com"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("a_b.c-d.example.org", "a_b.c-d.example.org"),
        ("1.example.com", "1.example.com"),
    ],
)
def test_a_domain_is_kept_in_its_normal_form(text, domain):
    assert parse(text) == domain.removesuffix(".")


@pytest.mark.parametrize(
    "text",
    [
        *("", ".", "*", "*.", "com", "localhost", ".com", "a..b", "-a.com", "a-.com", "exa mple.com"),
        *("http://example.com", "example.com:443", "example.com/path", "user@example.com", "bücher.example"),
        *(
            "127.0.0.1",
            "127.1",
            "0x7f.1",
            "1.0x",
            "2130706433",
            "[::1]",
            "::1",
            "10.0.0.0/8",
            "a*.example.com",
        ),
        *(
            "..example.com",
            "*.*.example.com",
            "example.com..",
            "a" * 64 + ".com",
            "a." * 130 + "com",
            "a\0.com",
        ),
    ],
)
def test_what_is_no_domain_is_refused_and_so_is_an_address_in_any_notation(text):
    with pytest.raises(ValidationError):
        parse(text)


@pytest.mark.parametrize(
    ("domain", "hosts", "others"),
    [
        ("example.com", ["example.com"], ["www.example.com", "example.com.org", "notexample.com"]),
        (".example.com", ["example.com", "a.b.example.com"], ["notexample.com", "example.com.org"]),
        ("*.example.com", ["www.example.com", "a.b.example.com"], ["example.com", "notexample.com"]),
    ],
)
def test_a_domain_means_these_hosts_and_no_others(domain, hosts, others):
    assert all(is_allowed(host, ["other.org", domain]) for host in hosts)
    assert not any(is_allowed(host, ["other.org", domain]) for host in others)


def test_no_domains_allow_nothing():
    assert not is_allowed("example.com", [])


@pytest.mark.parametrize(
    ("domain", "within", "beyond"),
    [
        ("example.com", ["example.com", ".example.com", "other.org"], ["*.example.com"]),
        ("www.example.com", [".example.com", "*.example.com"], ["example.com"]),
        (".example.com", [".example.com"], ["example.com", "*.example.com"]),
        ("*.example.com", [".example.com", "*.example.com"], ["example.com", "*.a.example.com"]),
        (".a.example.com", [".example.com", "*.example.com"], ["a.example.com", "*.a.example.com"]),
    ],
)
def test_an_operators_domains_cover_those_of_a_job_when_they_have_all_its_hosts(domain, within, beyond):
    assert is_covered(domain, within)
    assert not is_covered(domain, beyond)


def test_a_host_is_compared_without_its_case_and_final_dot():
    assert normal_host("Example.COM.") == "example.com"
    assert normal_host("example.com..") is None
    assert normal_host("127.0.0.1") is None
