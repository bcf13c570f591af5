"""The bodies of requests and responses, as the OpenAPI document describes them.

Responses are not validated against these models: that would take longer than making them. A test does it.
"""
