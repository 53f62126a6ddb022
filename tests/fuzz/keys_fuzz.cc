// Any file of keys: what is read of it is written and read again as the same, and is found.
#include <cstdlib>

#include "shared/keys/keys_file.h"

using namespace penstock::keys;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto keys = read_keys({reinterpret_cast<const char*>(data), size});
  if (!keys) {
    return 0;
  }
  const std::string written = write_keys(*keys);
  const auto again = read_keys(written);
  if (!again || again->size() != keys->size() || write_keys(*again) != written) {
    std::abort();
  }
  for (const Key& key : *keys) {
    const Key* const found = find_key(*again, key.digest);
    if (found == nullptr || found->owner != key.owner || found->ends_s != key.ends_s) {
      std::abort();
    }
  }
  return 0;
}
