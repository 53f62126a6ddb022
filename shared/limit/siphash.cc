#include "shared/limit/siphash.h"

namespace penstock::limit {

Hash128 siphash13_128(const Secret& secret, const void* data, size_t size) noexcept {
  return SipState<1, 3>(secret).hash128(data, size);
}

Secret derive_secret(const Secret& zone, std::string_view limit_name) noexcept {
  // Done once per limit, so the stronger variant costs nothing.
  const Hash128 hash = SipState<2, 4>(zone).hash128(limit_name.data(), limit_name.size());
  return {hash.lo, hash.hi};
}

}  // namespace penstock::limit
