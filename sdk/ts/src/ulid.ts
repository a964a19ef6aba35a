const ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/** A ULID: 48 bits of time and 80 random ones, in Crockford's base 32. */
export function ulid(): string {
  const random = crypto.getRandomValues(new Uint8Array(16));
  let id = "";
  for (let time = Date.now(), i = 0; i < 10; i++, time = Math.floor(time / 32)) id = ALPHABET.charAt(time % 32) + id;
  // 256 is a multiple of 32, so that each character is as likely as any other.
  for (const byte of random) id += ALPHABET.charAt(byte % 32);
  return id;
}
