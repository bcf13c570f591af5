from __future__ import annotations

import pytest
from boto3.exceptions import S3UploadFailedError
from botocore.exceptions import ClientError, EndpointConnectionError, HTTPClientError, ReadTimeoutError

from bacalhau_p2p.outbound.s3.errors import S3Error, translated

UPLOAD_FAILED = "Failed to upload x: An error occurred (NoSuchBucket) when calling the PutObject operation"


def answer(code: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "of the server"}}, "GetObject")


@pytest.mark.parametrize(
    ("error", "cause", "permanent"),
    [
        (answer("404"), "not found", True),
        (answer("NoSuchVersion"), "no such version", True),
        (answer("AccessDenied"), "access denied", False),
        (answer("PreconditionFailed"), "the object changed during the download", False),
        (answer("SlowDown"), "the server returned SlowDown", False),
        (S3UploadFailedError(UPLOAD_FAILED), "no such bucket", True),
        (S3UploadFailedError("no code"), "the server returned an unknown error", False),
        (EndpointConnectionError(endpoint_url="http://secret"), "connection failed", False),
        (ReadTimeoutError(endpoint_url="http://secret"), "no data in time", False),
        (HTTPClientError(error="secret"), "request failed (HTTPClientError)", False),
    ],
)
def test_errors_of_boto3_have_a_short_cause(error, cause, permanent):
    with pytest.raises(S3Error) as caught, translated():
        raise error
    assert (str(caught.value), caught.value.permanent) == (cause, permanent)


def test_other_errors_are_not_translated():
    with pytest.raises(OSError, match="disk"), translated():
        raise OSError("disk")
