"""S3 and compatible servers, by way of boto3."""
