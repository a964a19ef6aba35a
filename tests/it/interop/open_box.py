"""Opens a box with PyNaCl, that is with libsodium itself.

Arguments: the receiver's secret key (128 hex digits), the sender's public key
(64 hex digits), nonce and ciphertext (base64). Prints the plaintext in hex, or
`closed` when the box does not open.
"""

import base64
import sys

import nacl.bindings
import nacl.exceptions

secret, public, nonce, ciphertext = sys.argv[1:5]
own = nacl.bindings.crypto_sign_ed25519_sk_to_curve25519(bytes.fromhex(secret))
other = nacl.bindings.crypto_sign_ed25519_pk_to_curve25519(bytes.fromhex(public))
try:
    text = nacl.bindings.crypto_box_open(base64.b64decode(ciphertext), base64.b64decode(nonce), other, own)
    print(text.hex())
except nacl.exceptions.CryptoError:
    print("closed")
