"""What schemathesis has to know of the media types of uploads."""

import schemathesis


@schemathesis.serializer("application/offset+octet-stream")
def offset(ctx, value):
    return value if isinstance(value, bytes) else str(value).encode()
