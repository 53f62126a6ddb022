#include "shared/wire/receipt.h"

#include <gtest/gtest.h>

#include <string>

namespace penstock::wire {
namespace {

std::string two_entries() {
  const ReceiptEntry first{"edge", "free-rate", 7, 8, 1, 2, 3, 4, 9, 10};
  const ReceiptEntry second{"edge", "", 0, 0, UINT64_MAX, 0, 5, 6};
  std::string bytes(1 + receipt_entry_size(first) + receipt_entry_size(second), '\0');
  char* out = begin_receipt(bytes.data());
  out = write_receipt_entry(write_receipt_entry(out, first), second);
  EXPECT_EQ(out, bytes.data() + bytes.size());
  return bytes;
}

TEST(ReceiptTest, ReadsWhatWasWritten) {
  const std::string bytes = two_entries();
  ReceiptReader reader(bytes);
  ReceiptEntry entry;
  ASSERT_TRUE(reader.next(entry));
  EXPECT_EQ(entry.zone, "edge");
  EXPECT_EQ(entry.rule, "free-rate");
  EXPECT_EQ(entry.table, 7U);
  EXPECT_EQ(entry.generation, 8U);
  EXPECT_EQ(entry.place_hi, 2U);
  EXPECT_EQ(entry.state, 4U);
  EXPECT_EQ(entry.nonce, 9U);
  EXPECT_EQ(entry.seal, 10U);
  ASSERT_TRUE(reader.next(entry));
  EXPECT_EQ(entry.place_lo, UINT64_MAX);
  EXPECT_FALSE(reader.next(entry));
  EXPECT_TRUE(reader.good());
}

TEST(ReceiptTest, OneThatIsCutShortAnywhereIsSeen) {
  const std::string bytes = two_entries();
  for (size_t size = 0; size < bytes.size(); ++size) {
    ReceiptReader reader(std::string_view(bytes).substr(0, size));
    ReceiptEntry entry;
    size_t count = 0;
    while (reader.next(entry)) {
      ++count;
    }
    const bool at_an_end = size == 1 || (count == 1 && reader.good());
    EXPECT_EQ(reader.good(), at_an_end) << size;
    EXPECT_LE(count, 1U);
  }
}

// As the version before wrote it.
TEST(ReceiptTest, OneWithoutSealsIsRead) {
  std::string bytes = two_entries();
  bytes.erase(bytes.size() - 16);
  const size_t first = 1 + receipt_entry_size({"edge", "free-rate"});
  bytes.erase(first - 16, 16);
  bytes[0] = 2;
  ReceiptReader reader(bytes);
  ReceiptEntry entry;
  entry.seal = 1;
  ASSERT_TRUE(reader.next(entry));
  EXPECT_EQ(entry.state, 4U);
  EXPECT_EQ(entry.seal, 0U);
  ASSERT_TRUE(reader.next(entry));
  EXPECT_EQ(entry.state, 6U);
  EXPECT_FALSE(reader.next(entry));
  EXPECT_TRUE(reader.good());
  EXPECT_EQ(sealed_part(bytes), "");
}

TEST(ReceiptTest, WhatIsSealedStandsAlone) {
  const std::string sealed = sealed_part(two_entries());
  ReceiptReader reader(sealed);
  ReceiptEntry entry;
  ASSERT_TRUE(reader.next(entry));
  EXPECT_EQ(entry.rule, "free-rate");
  EXPECT_EQ(entry.seal, 10U);
  EXPECT_FALSE(reader.next(entry));
  EXPECT_TRUE(reader.good());
  EXPECT_EQ(sealed_part(sealed), sealed);
  EXPECT_EQ(sealed_part(sealed.substr(0, sealed.size() - 1)), "") << "it is cut short";
  EXPECT_EQ(sealed_part(std::string(1, sealed[0])), "") << "there is none";
}

TEST(ReceiptTest, OneThatIsTooLongOrOfAnotherVersionIsNotRead) {
  ReceiptEntry entry;
  std::string other = two_entries();
  other[0] = 1;
  ReceiptReader version(other);
  EXPECT_FALSE(version.next(entry));
  EXPECT_FALSE(version.good());
  ReceiptReader size(std::string(kMaxReceiptBytes + 1, '\x02'));
  EXPECT_FALSE(size.next(entry));
  EXPECT_FALSE(size.good());
}

}  // namespace
}  // namespace penstock::wire
