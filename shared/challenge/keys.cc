#include "shared/challenge/keys.h"

#include <algorithm>

namespace penstock::challenge {
namespace {

void derive(const Digest& master, std::string_view name, std::array<char, 64>& key) noexcept {
  write_hex(hmac(text_of(master), name), key.data());
}

}  // namespace

Keys make_keys(std::string_view secret) noexcept {
  Keys keys;
  keys.master = hmac("penstock-challenge", secret);
  derive(keys.master, "altcha-signature", keys.signature_key);
  derive(keys.master, "altcha-key", keys.number_key);
  return keys;
}

Holder make_holder(const Keys& keys, std::string_view limit, std::string_view who) noexcept {
  Holder holder;
  const Digest of_limit = hmac(text_of(keys.master), limit);
  const Digest of_who = hmac(text_of(of_limit), who);
  std::copy_n(of_limit.begin(), holder.limit.size(), holder.limit.begin());
  std::copy_n(of_who.begin(), holder.subject.size(), holder.subject.begin());
  return holder;
}

}  // namespace penstock::challenge
