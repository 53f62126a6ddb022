// What is published, or lies in a stream, where answers of jobs are expected: messages, entries,
// places. What is taken is within its bounds, and as it would be written.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "worker/queue/shared_answers/parts.h"

namespace {

using namespace penstock::queue;

void check(bool holds) {
  if (!holds) {
    std::abort();
  }
}

void check(const Part& part) {
  check(part.place.fence > 0 && part.place.fence <= PartPlace::kHighest);
  check(part.place.number > 0 && part.place.number <= PartPlace::kHighest);
  check(part.kind >= Part::Kind::kBegun && part.kind <= Part::Kind::kEnd);
  check(part.bytes.size() <= Part::kMostBytes);
}

// What was read is read again from what is written of it.
void message(std::string_view text) {
  MessageReader reader(text);
  std::string_view id;
  for (Part part; reader.next(id, part);) {
    check(part);
    check(!id.empty() && id.size() <= Part::kMostIdBytes);
    std::string again;
    append_to_message(again, id, part);
    MessageReader same(again);
    std::string_view same_id;
    Part same_part;
    check(same.next(same_id, same_part) && !same.broken());
    check(same_id == id && same_part.place == part.place && same_part.kind == part.kind &&
          same_part.bytes == part.bytes);
  }
}

void entry(PartPlace last, std::string_view bytes) {
  EntryReader reader(last, bytes);
  std::string again;
  PartPlace before;
  for (Part part; reader.next(part); before = part.place) {
    check(part);
    check(part.place.fence == last.fence && part.place.number <= last.number);
    check(again.empty() || part.place.number == before.number + 1);
    append_to_entry(again, part);
  }
  if (!reader.broken()) {
    check(before == last);
    EntryReader same(last, again);
    for (Part part; same.next(part);) {
    }
    check(!same.broken());
  }
}

}  // namespace

// A place, and behind a space an entry of that place; or a message.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  if (bytes.starts_with(kPartsMessage)) {
    message(bytes);
    return 0;
  }
  const size_t space = bytes.find(' ');
  if (const auto place = parse_place(bytes.substr(0, space))) {
    check(place->fence <= PartPlace::kHighest && place->number <= PartPlace::kHighest);
    check(parse_place(place->text()) == place);
    entry(*place, space == std::string_view::npos ? "" : bytes.substr(space + 1));
  }
  return 0;
}
