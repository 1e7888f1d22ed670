"""An S3-compatible server on loopback for tests (moto: it checks signatures), and questions to it by another client than the one under test.

serve PORT      serves until its end; prints "KEY SECRET" of its only user when it is ready. SIGUSR1 closes the port, SIGUSR2 opens it again:
                what was stored stays.
objects PORT KEY SECRET BUCKET FOLDER    writes every object of the bucket to a file below FOLDER, and prints how many uploads of several
                                         parts have not ended.
"""

import json
import logging
import pathlib
import signal
import sys

HOST = "127.0.0.1"
BUCKET = "models"
ALL = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}


def client(service, port, key, secret):
    import boto3
    from botocore.config import Config

    config = Config(proxies={}, retries={"max_attempts": 1})
    return boto3.client(
        service,
        endpoint_url=f"http://{HOST}:{port}",
        region_name="us-east-1",
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        config=config,
    )


def serve(port):
    from moto import settings
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    signals = {signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM}
    # Before the server's threads begin: they inherit it, and this one waits for the signals.
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    server = ThreadedMotoServer(HOST, port, verbose=False)
    server.start()
    iam = client("iam", port, "nobody", "nothing")
    iam.create_user(UserName="mirror")
    iam.put_user_policy(UserName="mirror", PolicyName="all", PolicyDocument=json.dumps(ALL))
    made = iam.create_access_key(UserName="mirror")["AccessKey"]
    key, secret = made["AccessKeyId"], made["SecretAccessKey"]
    client("s3", port, "nobody", "nothing").create_bucket(Bucket=BUCKET)
    # From now on each request must be signed by the user.
    settings.INITIAL_NO_AUTH_ACTION_COUNT = 0
    print(key, secret, flush=True)
    is_open = True
    while True:
        got = signal.sigwait(signals)
        if got == signal.SIGTERM:
            return
        if got == signal.SIGUSR1 and is_open:
            server.stop()
            server._server.server_close()
            is_open = False
        elif got == signal.SIGUSR2 and not is_open:
            server.start()
            is_open = True


def objects(port, key, secret, bucket, folder):
    s3 = client("s3", port, key, secret)
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        for found in page.get("Contents", []):
            try:
                body = s3.get_object(Bucket=bucket, Key=found["Key"])["Body"].read()
            except s3.exceptions.NoSuchKey:
                # The note of an upload that has ended since the list was made: the one thing that is ever deleted.
                if "/uploads/" not in found["Key"]:
                    raise
                continue
            path = pathlib.Path(folder) / found["Key"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(body)
    print(len(s3.list_multipart_uploads(Bucket=bucket).get("Uploads", [])))


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(int(sys.argv[2]))
    else:
        objects(int(sys.argv[2]), *sys.argv[3:7])
