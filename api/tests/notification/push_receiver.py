"""A push service and a browser: http_ece decrypts, PyJWT checks who signs. Says its keys, then what the browser reads as lines of JSON."""

import base64
import http.server
import json
import os
import sys
import threading

import http_ece
import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

key = ec.generate_private_key(ec.SECP256R1())
auth = os.urandom(16)


def b64(raw):
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def unb64(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


class Push(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        scheme, rest = self.headers["authorization"].split(" ", 1)
        fields = dict(part.strip().split("=", 1) for part in rest.split(","))
        signer = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), unb64(fields["k"]))
        origin = f"http://127.0.0.1:{self.server.server_port}"
        claims = jwt.decode(fields["t"], signer, algorithms=["ES256"], audience=origin)
        plain = http_ece.decrypt(body, private_key=key, auth_secret=auth, version="aes128gcm")
        said = {
            "scheme": scheme,
            "claims": claims,
            "ttl": self.headers["ttl"],
            "topic": self.headers["topic"],
            "encoding": self.headers["content-encoding"],
            "key": fields["k"],
            "message": json.loads(plain),
        }
        print(json.dumps(said), flush=True)
        self.send_response(201)
        self.send_header("location", f"{origin}/message/1")
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *args):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Push)
threading.Thread(target=server.serve_forever, daemon=True).start()
point = key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
print(json.dumps({"port": server.server_port, "p256dh": b64(point), "auth": b64(auth)}), flush=True)
sys.stdin.read()
