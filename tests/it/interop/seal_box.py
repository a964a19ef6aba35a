"""Seals a text with PyNaCl, that is with libsodium itself.

Arguments: the sender's secret key (128 hex digits), the receiver's public key
(64 hex digits), the text. Prints nonce and ciphertext (base64) in two lines.
"""

import base64
import sys

import nacl.bindings
import nacl.utils

secret, public, text = sys.argv[1:4]
own = nacl.bindings.crypto_sign_ed25519_sk_to_curve25519(bytes.fromhex(secret))
other = nacl.bindings.crypto_sign_ed25519_pk_to_curve25519(bytes.fromhex(public))
nonce = nacl.utils.random(nacl.bindings.crypto_box_NONCEBYTES)
print(base64.b64encode(nonce).decode())
print(base64.b64encode(nacl.bindings.crypto_box(text.encode(), nonce, other, own)).decode())
