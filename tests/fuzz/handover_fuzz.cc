// Any bytes as a hand-over record, and as what a successor says: nothing crashes, what is accepted
// is read to its end, and what a successor says is said again as the same.
#include <cstdlib>
#include <string>
#include <string_view>

#include "worker/queue/handover/record.h"
#include "worker/queue/process/successor.h"

using namespace penstock::queue;  // NOLINT(google-build-using-namespace)

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  CarriedBegin begin;
  if (check_record(bytes, begin) == nullptr) {
    RecordReader reader(bytes);
    while (reader.next()) {
    }
    if (reader.error() != nullptr || begin.format < kOldestFormat || begin.format > kNewestFormat) {
      std::abort();
    }
  }
  if (const auto says = parse_successor(bytes); says) {
    const auto again = parse_successor(text_of(*says));
    if (!again || again->version != says->version || again->socket != says->socket ||
        again->newest_format != says->newest_format || again->shared != says->shared) {
      std::abort();
    }
  }
  return 0;
}
