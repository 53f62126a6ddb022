// Any bytes on a socket: frames are taken off and parsed as every message there is; whatever is
// accepted must survive being written and read again.
#include <cstdlib>
#include <string>

#include "shared/wire/device_messages.h"
#include "shared/wire/messages.h"

using namespace penstock::wire;  // NOLINT(google-build-using-namespace)

namespace {

template <typename M>
void round_trip(std::string_view payload) {
  M message;
  if (parse(payload, message) != nullptr) {
    return;
  }
  std::string once;
  append(once, 1, message);
  const Decoded decoded = decode(once, Limits{});
  M again;
  std::string twice;
  if (decoded.kind != Decoded::kFrame || parse(decoded.frame.payload, again) != nullptr) {
    std::abort();
  }
  append(twice, 1, again);
  if (once != twice || once.size() != encoded_size(message)) {
    std::abort();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string_view rest(reinterpret_cast<const char*>(data), size);
  for (;;) {
    const Decoded decoded = decode(rest, Limits{});
    if (decoded.kind != Decoded::kFrame) {
      return 0;
    }
    const std::string_view payload = decoded.frame.payload;
    round_trip<Hello>(payload);
    round_trip<Submit>(payload);
    round_trip<Ask>(payload);
    round_trip<Hold>(payload);
    round_trip<Over>(payload);
    round_trip<Accepted>(payload);
    round_trip<Head>(payload);
    round_trip<Note>(payload);
    round_trip<Progress>(payload);
    round_trip<Done>(payload);
    round_trip<Failed>(payload);
    round_trip<Checked>(payload);
    round_trip<Take>(payload);
    round_trip<Claim>(payload);
    round_trip<Grant>(payload);
    round_trip<Window>(payload);
    round_trip<Settled>(payload);
    round_trip<Spent>(payload);
    round_trip<QuotaNotice>(payload);
    round_trip<Heartbeat>(payload);
    round_trip<StatusReport>(payload);
    round_trip<Goodbye>(payload);
    round_trip<Device>(payload);
    round_trip<Devices>(payload);
    rest.remove_prefix(decoded.consumed);
  }
}
