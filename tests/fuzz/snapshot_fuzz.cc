// Any bytes as a snapshot of counters, once as they are and once with their checksums made right:
// nothing crashes, and what is accepted makes a table whose own snapshot is accepted and makes the
// same table.
#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "shared/limit/snapshot.h"

using namespace penstock::limit;  // NOLINT(google-build-using-namespace)

namespace {

constexpr size_t kSlots = 512;

struct alignas(4096) Memory {
  std::byte bytes[Table::bytes_for(kSlots)];
};

// One file and two tables, used again and again.
const int file = memfd_create("snapshot", 0);
Memory memories[2];

void put(const std::string& bytes) {
  if (ftruncate(file, 0) != 0 ||
      pwrite(file, bytes.data(), bytes.size(), 0) != static_cast<ssize_t>(bytes.size()) ||
      lseek(file, 0, SEEK_SET) != 0) {
    std::abort();
  }
}

// Each frame's checksum is set to what it should be, as far as frames can be told.
std::string with_checksums(std::string bytes) {
  constexpr uint64_t kKey = 0x656c626174206b73;
  uint64_t chain = 0;
  for (size_t at = 0; at + 16 <= bytes.size();) {
    uint32_t size = 0;
    std::memcpy(&size, bytes.data() + at, 4);
    if (size > bytes.size() - at - 16) {
      break;
    }
    chain = SipState<2, 4>(Secret{chain, kKey}).hash64(bytes.data() + at, 8 + size);
    std::memcpy(bytes.data() + at + 8 + size, &chain, 8);
    if (at == 0 && size == 216) {
      chain = SipState<2, 4>(Secret{0, kKey}).hash64(bytes.data() + 32, 16);
    }
    at += 16 + size;
  }
  return bytes;
}

bool read(Memory& memory, SnapshotHead& head, Table*& table) {
  static std::vector<Table> tables;
  SnapshotReader reader(file);
  auto found = reader.head();
  if (!found) {
    return false;
  }
  head = *found;
  auto made =
      Table::create(memory.bytes, head.secret, clock_offset_ns(head, 0, head.taken.wall_ns));
  const bool same_size = made->slots() == head.slots;
  if (!reader.body(same_size ? &*made : nullptr) || !same_size) {
    return false;
  }
  tables.assign(1, *made);
  table = tables.data();
  return true;
}

void check(const std::string& bytes) {
  put(bytes);
  SnapshotHead head;
  Table* table = nullptr;
  if (!read(memories[0], head, table)) {
    return;
  }
  const Table first = *table;
  if (ftruncate(file, 0) != 0 || lseek(file, 0, SEEK_SET) != 0) {
    std::abort();
  }
  auto written = write_snapshot(file, first, head.taken);
  lseek(file, 0, SEEK_SET);
  SnapshotHead again;
  if (!written || *written != snapshot_digest(first, head.taken) ||
      !read(memories[1], again, table) || again.secret != head.secret ||
      again.taken.steady_ns != head.taken.steady_ns ||
      std::memcmp(memories[0].bytes, memories[1].bytes, sizeof(Memory)) != 0) {
    std::abort();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string bytes(reinterpret_cast<const char*>(data), size);
  check(bytes);
  check(with_checksums(bytes));
  return 0;
}
