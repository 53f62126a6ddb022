"""ALTCHA's proof of work and Penstock's passes, written anew: to solve, and to forge with the secret in hand."""

import base64
import hashlib
import hmac
import json
import struct

LIFE = 300


def payload(value):
    return base64.b64encode((value if isinstance(value, str) else json.dumps(value)).encode()).decode()


def solved(challenge):
    """What a widget makes of a challenge, before it is base 64."""
    if "parameters" in challenge:
        return solved_by_key(challenge)
    salt, wanted = challenge["salt"].encode(), challenge["challenge"]
    n = next(n for n in range(challenge["maxnumber"]) if hashlib.sha256(salt + b"%d" % n).hexdigest() == wanted)
    return {"algorithm": "SHA-256", "challenge": wanted, "number": n, "salt": challenge["salt"],
            "signature": challenge["signature"], "took": 1}


def derived(parameters, counter):
    nonce, salt = (bytes.fromhex(parameters[name]) for name in ("nonce", "salt"))
    return hashlib.pbkdf2_hmac("sha256", nonce + struct.pack(">I", counter), salt, parameters["cost"], parameters["keyLength"])


def solved_by_key(challenge):
    parameters, counter = challenge["parameters"], 0
    assert parameters["algorithm"] == "PBKDF2/SHA-256"
    while not (key := derived(parameters, counter).hex()).startswith(parameters["keyPrefix"]):
        counter += 1
    return {"challenge": challenge, "solution": {"counter": counter, "derivedKey": key, "time": 1.5}}


def mac(key, text):
    return hmac.new(key, text, hashlib.sha256)


class Keys:
    """Of a zone with this secret_file=."""

    def __init__(self, secret):
        self.master = mac(b"penstock-challenge", secret).digest()
        self.signature = mac(self.master, b"altcha-signature").hexdigest().encode()

    def holder(self, limit, who):
        of_limit = mac(self.master, limit).digest()
        return of_limit[:4], mac(of_limit, who).digest()[:8]

    def challenge(self, holder, expires, n=77, salt=None, numbers=100):
        """One that is solved by n."""
        text = salt or f"{'ab' * 12}?expires={int(expires)}&l={holder[0].hex()}&s={holder[1].hex()}&"
        digest = hashlib.sha256(f"{text}{n}".encode()).hexdigest()
        return {"algorithm": "SHA-256", "challenge": digest, "maxnumber": numbers, "salt": text,
                "signature": mac(self.signature, digest.encode()).hexdigest()}

    def one_of_keys(self, holder, expires, cost=10, prefix="0"):
        """The same, of version 2."""
        parameters = {"algorithm": "PBKDF2/SHA-256", "cost": cost, "data": {"l": holder[0].hex(), "s": holder[1].hex()},
                      "expiresAt": int(expires), "keyLength": 32, "keyPrefix": prefix, "nonce": "cd" * 16, "salt": "ef" * 16}
        text = json.dumps(parameters, sort_keys=True, separators=(",", ":"))
        return {"parameters": parameters, "signature": mac(self.signature, text.encode()).hexdigest()}

    def passed(self, holder, issued, seconds, epoch=None):
        """A pass."""
        def url(data):
            return base64.urlsafe_b64encode(data).decode().rstrip("=")
        epoch = int(issued) // (7 * 86400) if epoch is None else epoch
        text = f"p1.{epoch}.{url(holder[0] + holder[1] + b'12345678' + struct.pack('>II', int(issued), seconds))}"
        key = mac(self.master, f"pass{epoch}".encode()).digest()
        return f"{text}.{url(mac(key, b'penstock-pass' + bytes(1) + text.encode()).digest()[:16])}"
