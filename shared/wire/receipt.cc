#include "shared/wire/receipt.h"

#include "shared/base/bytes.h"

namespace penstock::wire {
namespace {

constexpr char kVersion = 2;

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
  for (const uint64_t number :
       {entry.table, entry.generation, entry.place_lo, entry.place_hi, entry.cost, entry.state}) {
    out = write_number(out, number);
  }
  return out;
}

ReceiptReader::ReceiptReader(std::string_view receipt) noexcept {
  good_ = !receipt.empty() && receipt.size() <= kMaxReceiptBytes && receipt.front() == kVersion;
  rest_ = good_ ? receipt.substr(1) : std::string_view();
}

bool ReceiptReader::next(ReceiptEntry& entry) noexcept {
  if (rest_.empty() || !good_) {
    return false;
  }
  good_ = ++count_ <= kMaxReceiptEntries && read_name(rest_, entry.zone) &&
          read_name(rest_, entry.rule) && read_number(rest_, entry.table) &&
          read_number(rest_, entry.generation) && read_number(rest_, entry.place_lo) &&
          read_number(rest_, entry.place_hi) && read_number(rest_, entry.cost) &&
          read_number(rest_, entry.state);
  return good_;
}

}  // namespace penstock::wire
