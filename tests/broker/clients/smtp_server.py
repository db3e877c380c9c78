"""SMTP server that requires STARTTLS and a login, and prints each message that it accepts as a line of JSON.

smtp_server.py PORT USER PASSWORD CERTIFICATE KEY prints its port, and serves until it is killed. It refuses recipients whose names
begin with "refused" for ever, and those whose names begin with "busy" once.
"""

import asyncio
import email
import email.policy
import json
import ssl
import sys

from aiosmtpd.smtp import SMTP, AuthResult

port, user, password, certificate, key = sys.argv[1:]
busy = set()


def show(line):
    print(json.dumps(line), flush=True)


class Handler:
    async def handle_RCPT(self, server, session, envelope, address, options):
        if address.startswith("refused"):
            return "550 5.1.1 no such mailbox"
        if address.startswith("busy") and address not in busy:
            busy.add(address)
            return "451 4.7.1 try again later"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        message = email.message_from_bytes(envelope.content, policy=email.policy.default)
        show(
            {
                "id": message["Message-ID"],
                "from": envelope.mail_from,
                "to": envelope.rcpt_tos,
                "subject": message["Subject"],
                "type": message.get_content_type(),
                "body": message.get_content(),
                "headers": sorted(message.keys()),
                "tls": session.ssl is not None,
            }
        )
        return "250 OK"


def authenticate(server, session, envelope, mechanism, data):
    return AuthResult(success=(data.login, data.password) == (user.encode(), password.encode()))


async def main():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    def server():
        return SMTP(Handler(), tls_context=context, require_starttls=True, auth_required=True, authenticator=authenticate)

    serving = await asyncio.get_running_loop().create_server(server, "127.0.0.1", int(port))
    show({"port": serving.sockets[0].getsockname()[1]})
    await serving.serve_forever()


asyncio.run(main())
