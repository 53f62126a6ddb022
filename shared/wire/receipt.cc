#include "shared/wire/receipt.h"

#include <algorithm>

#include "shared/base/bytes.h"

namespace penstock::wire {
namespace {

constexpr char kVersion = 3;
constexpr char kWithoutSeals = 2;

char* write_name(char* out, std::string_view name) noexcept {
  *out++ = static_cast<char>(name.size());
  std::memcpy(out, name.data(), name.size());
  return out + name.size();
}

char* write_number(char* out, uint64_t number) noexcept {
  store_le(out, number);
  return out + sizeof number;
}

bool read_name(std::string_view& rest, std::string_view& name) noexcept {
  const size_t size = rest.empty() ? 0 : static_cast<uint8_t>(rest.front());
  if (rest.size() < 1 + size) {
    return false;
  }
  name = rest.substr(1, size);
  rest.remove_prefix(1 + size);
  return true;
}

bool read_number(std::string_view& rest, uint64_t& number) noexcept {
  if (rest.size() < sizeof number) {
    return false;
  }
  number = load_le<uint64_t>(rest.data());
  rest.remove_prefix(sizeof number);
  return true;
}

}  // namespace

char* begin_receipt(char* out) noexcept {
  *out = kVersion;
  return out + 1;
}

char* write_receipt_entry(char* out, const ReceiptEntry& entry) noexcept {
  out = write_name(write_name(out, entry.zone), entry.rule);
  for (const uint64_t number : {entry.table, entry.generation, entry.place_lo, entry.place_hi,
                                entry.cost, entry.state, entry.nonce, entry.seal}) {
    out = write_number(out, number);
  }
  return out;
}

ReceiptReader::ReceiptReader(std::string_view receipt) noexcept {
  has_seals_ = !receipt.empty() && receipt.front() == kVersion;
  good_ = !receipt.empty() && receipt.size() <= kMaxReceiptBytes &&
          (has_seals_ || receipt.front() == kWithoutSeals);
  rest_ = good_ ? receipt.substr(1) : std::string_view();
}

bool ReceiptReader::next(ReceiptEntry& entry) noexcept {
  if (rest_.empty() || !good_) {
    return false;
  }
  entry.nonce = entry.seal = 0;
  good_ = ++count_ <= kMaxReceiptEntries && read_name(rest_, entry.zone) &&
          read_name(rest_, entry.rule) && read_number(rest_, entry.table) &&
          read_number(rest_, entry.generation) && read_number(rest_, entry.place_lo) &&
          read_number(rest_, entry.place_hi) && read_number(rest_, entry.cost) &&
          read_number(rest_, entry.state) &&
          (!has_seals_ || (read_number(rest_, entry.nonce) && read_number(rest_, entry.seal)));
  return good_;
}

std::string sealed_part(std::string_view receipt) {
  std::string part;
  ReceiptEntry entry;
  ReceiptReader reader(receipt);
  while (reader.next(entry)) {
    if (entry.seal == 0) {
      continue;
    }
    size_t size = std::max<size_t>(part.size(), 1);
    part.resize(size + receipt_entry_size(entry));
    begin_receipt(part.data());
    write_receipt_entry(part.data() + size, entry);
  }
  return reader.good() ? part : std::string();
}

}  // namespace penstock::wire
