"""A mail server: aiosmtpd, with the parser of Python's library. Says its port, then each mail that it took as a line of JSON."""

import email.policy
import json
import socket
import sys

from aiosmtpd.controller import Controller


class Print:
    async def handle_RCPT(self, server, session, envelope, address, options):
        if address.startswith("nobody@"):
            return "550 5.1.1 no such user"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        mail = email.message_from_bytes(envelope.content, policy=email.policy.default)
        said = {
            "from": envelope.mail_from,
            "to": envelope.rcpt_tos,
            "subject": str(mail["subject"]),
            "message_id": str(mail["message-id"]),
            "unsubscribe": str(mail["list-unsubscribe"]),
            "post": str(mail["list-unsubscribe-post"]),
            "text": mail.get_body(("plain",)).get_content(),
            "html": mail.get_body(("html",)).get_content(),
            "defects": [str(d) for part in mail.walk() for d in part.defects],
        }
        print(json.dumps(said), flush=True)
        return "250 taken"


controller = Controller(Print(), hostname="127.0.0.1", port=0)


def look():
    """The library looks at the port that it was told; 0 is whichever is free."""
    with socket.create_connection(controller.server.sockets[0].getsockname()[:2]) as greeting:
        greeting.recv(1024)


controller._trigger_server = look
controller.start()
print(controller.server.sockets[0].getsockname()[1], flush=True)
sys.stdin.read()
controller.stop()
