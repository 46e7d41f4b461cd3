"""The everyday subset of S3 by boto3, Amazon's own client, against an endpoint. Prints "ok" at the end; fails loudly."""
import io
import os
import sys
import urllib.request

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

endpoint, bucket = sys.argv[1], sys.argv[2]
s3 = boto3.client("s3", endpoint_url=endpoint, config=Config(signature_version="s3v4", s3={"addressing_style": "path"}))
odd = "odd/../../etc/passwd//x %25?&+\u00fc\u4e2d\U0001F600"


def fails(code, call, **arguments):
    try:
        call(**arguments)
    except ClientError as error:
        assert error.response["Error"]["Code"] == code, error.response
    else:
        raise AssertionError(f"{code} expected")


s3.create_bucket(Bucket=bucket)
assert bucket in [each["Name"] for each in s3.list_buckets()["Buckets"]]
for i in range(25):
    s3.put_object(Bucket=bucket, Key=f"d{i % 5}/k{i:03d}", Body=str(i).encode(), Metadata={"n": str(i)}, ContentType="text/x")
s3.put_object(Bucket=bucket, Key=odd, Body=b"odd")
assert s3.get_object(Bucket=bucket, Key=odd)["Body"].read() == b"odd"
got = s3.get_object(Bucket=bucket, Key="d1/k001")
assert got["Metadata"] == {"n": "1"} and got["ContentType"] == "text/x" and got["Body"].read() == b"1"

for operation in ("list_objects_v2", "list_objects"):
    pages = s3.get_paginator(operation).paginate(Bucket=bucket, PaginationConfig={"PageSize": 4})
    keys = [each["Key"] for page in pages for each in page["Contents"]]
    assert len(keys) == 26 and keys == sorted(keys), keys
    pages = s3.get_paginator(operation).paginate(Bucket=bucket, Delimiter="/", PaginationConfig={"PageSize": 2})
    assert [each["Prefix"] for page in pages for each in page.get("CommonPrefixes", [])] == ["d0/", "d1/", "d2/", "d3/", "d4/", "odd/"]
found = s3.list_objects_v2(Bucket=bucket, Prefix="d1/", StartAfter="d1/k006")
assert [each["Key"] for each in found["Contents"]] == ["d1/k011", "d1/k016", "d1/k021"]

for algorithm in ("CRC32", "SHA1", "SHA256"):
    s3.put_object(Bucket=bucket, Key="sum/" + algorithm, Body=b"abc" * 1000, ChecksumAlgorithm=algorithm)
fails("BadDigest", s3.put_object, Bucket=bucket, Key="sum/wrong", Body=b"abc", ContentMD5="rL0Y20zC+Fzt72VPzMSk2A==")
fails("NoSuchKey", s3.get_object, Bucket=bucket, Key="sum/wrong")

s3.copy_object(Bucket=bucket, Key="copy", CopySource={"Bucket": bucket, "Key": odd})
assert s3.get_object(Bucket=bucket, Key="copy")["Body"].read() == b"odd"
etag = s3.head_object(Bucket=bucket, Key="copy")["ETag"]
fails("304", s3.head_object, Bucket=bucket, Key="copy", IfNoneMatch=etag)
fails("PreconditionFailed", s3.get_object, Bucket=bucket, Key="copy", IfMatch='"other"')
fails("PreconditionFailed", s3.put_object, Bucket=bucket, Key="copy", Body=b"z", IfNoneMatch="*")

data = os.urandom(6 << 20)
upload = s3.create_multipart_upload(Bucket=bucket, Key="parts", Metadata={"a": "b"})["UploadId"]
parts = []
for number, part in ((1, data), (2, data[:100])):
    parts.append({"PartNumber": number, "ETag": s3.upload_part(Bucket=bucket, Key="parts", UploadId=upload, PartNumber=number, Body=part)["ETag"]})
assert len(s3.list_parts(Bucket=bucket, Key="parts", UploadId=upload)["Parts"]) == 2
fails("InvalidPartOrder", s3.complete_multipart_upload, Bucket=bucket, Key="parts", UploadId=upload, MultipartUpload={"Parts": parts[::-1]})
assert s3.complete_multipart_upload(Bucket=bucket, Key="parts", UploadId=upload, MultipartUpload={"Parts": parts})["ETag"].endswith('-2"')
got = s3.get_object(Bucket=bucket, Key="parts")
assert got["Body"].read() == data + data[:100] and got["Metadata"] == {"a": "b"}
assert s3.get_object(Bucket=bucket, Key="parts", Range="bytes=6291450-6291459")["Body"].read() == (data + data[:100])[6291450:6291460]
fails("InvalidRange", s3.get_object, Bucket=bucket, Key="parts", Range="bytes=99999999-")
upload = s3.create_multipart_upload(Bucket=bucket, Key="aborted")["UploadId"]
s3.upload_part(Bucket=bucket, Key="aborted", UploadId=upload, PartNumber=1, Body=b"x")
s3.abort_multipart_upload(Bucket=bucket, Key="aborted", UploadId=upload)
fails("NoSuchUpload", s3.list_parts, Bucket=bucket, Key="aborted", UploadId=upload)
s3.upload_fileobj(io.BytesIO(data * 2), bucket, "fileobj")
assert s3.get_object(Bucket=bucket, Key="fileobj")["Body"].read() == data * 2

url = s3.generate_presigned_url("put_object", Params={"Bucket": bucket, "Key": "presigned"}, ExpiresIn=60)
urllib.request.urlopen(urllib.request.Request(url, data=b"presigned", method="PUT")).read()
url = s3.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "presigned"}, ExpiresIn=60)
assert urllib.request.urlopen(url).read() == b"presigned"
s3.put_object(Bucket=bucket, Key="empty", Body=b"")
assert s3.get_object(Bucket=bucket, Key="empty")["Body"].read() == b""

fails("NoSuchBucket", s3.get_object, Bucket="no-such-bucket", Key="x")
fails("BucketNotEmpty", s3.delete_bucket, Bucket=bucket)
fails("NotImplemented", s3.get_bucket_policy, Bucket=bucket)
access_key = os.environ["AWS_ACCESS_KEY_ID"]
wrong = boto3.client("s3", endpoint_url=endpoint, aws_access_key_id=access_key, aws_secret_access_key="wrong", config=Config(signature_version="s3v4"))
fails("SignatureDoesNotMatch", wrong.list_buckets)

keys = [each["Key"] for each in s3.list_objects_v2(Bucket=bucket)["Contents"]]
assert len(s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": key} for key in keys]})["Deleted"]) == len(keys)
s3.delete_bucket(Bucket=bucket)
print("ok")
