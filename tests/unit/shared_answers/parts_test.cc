#include "worker/queue/shared_answers/parts.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace penstock::queue {
namespace {

using Kind = Part::Kind;

struct Read {
  std::string id;
  PartPlace place;
  Kind kind;
  std::string bytes;
  bool operator==(const Read&) const = default;
};

std::vector<Read> read(std::string_view message, bool* broken = nullptr) {
  MessageReader reader(message);
  std::vector<Read> all;
  std::string_view id;
  for (Part part; reader.next(id, part);) {
    all.push_back({std::string(id), part.place, part.kind, std::string(part.bytes)});
  }
  if (broken != nullptr) {
    *broken = reader.broken();
  }
  return all;
}

TEST(PlaceTest, ReadsAsItIsWritten) {
  EXPECT_EQ(parse_place(PartPlace{7, 12}.text()), (PartPlace{7, 12}));
  EXPECT_EQ(parse_place("0-0"), (PartPlace{0, 0}));
  for (const char* const wrong : {"", "-", "7", "7-", "-12", "7-12 ", "7-12-1", "+7-1", "7--1",
                                  "7-99999999999999999999", "9007199254740993-1", "a-b"}) {
    EXPECT_FALSE(parse_place(wrong)) << wrong;
  }
}

TEST(PlaceTest, ALaterTakingIsBehindAllOfAnEarlierOne) {
  EXPECT_LT((PartPlace{7, 1000}), (PartPlace{8, 1}));
  EXPECT_LT((PartPlace{8, 1}), (PartPlace{8, 2}));
}

TEST(MessageTest, HasPartsOfManyJobs) {
  std::string message;
  append_to_message(message, "a", {{1, 1}, Kind::kHead, "head"});
  append_to_message(message, "job_b", {{PartPlace::kHighest, PartPlace::kHighest}, Kind::kEnd, ""});
  const std::string large(70'000, 'x');
  append_to_message(message, "a", {{300, 127}, Kind::kChunk, large});
  EXPECT_EQ(
      read(message),
      (std::vector<Read>{{"a", {1, 1}, Kind::kHead, "head"},
                         {"job_b", {PartPlace::kHighest, PartPlace::kHighest}, Kind::kEnd, ""},
                         {"a", {300, 127}, Kind::kChunk, large}}));
}

TEST(MessageTest, IsReadAsFarAsItIsWhole) {
  std::string message;
  append_to_message(message, "a", {{1, 1}, Kind::kHead, "head"});
  const size_t first = message.size();
  append_to_message(message, "a", {{1, 2}, Kind::kChunk, "chunk"});
  for (size_t size = first; size < message.size(); ++size) {
    bool broken = false;
    EXPECT_EQ(read(message.substr(0, size), &broken).size(), 1U);
    EXPECT_EQ(broken, size > first);
  }
}

TEST(MessageTest, WhatIsNoPartIsNone) {
  std::string good;
  append_to_message(good, "a", {{1, 1}, Kind::kHead, "h"});
  ASSERT_EQ(read(good).size(), 1U);
  const auto with = [&](size_t at, uint8_t byte) {
    std::string message = good;
    message[kPartsMessage.size() + at] = static_cast<char>(byte);
    return read(message).size();
  };
  EXPECT_EQ(with(0, 0), 0U) << "no id";
  EXPECT_EQ(with(2, 0), 0U) << "no fence";
  EXPECT_EQ(with(3, 0), 0U) << "no number";
  EXPECT_EQ(with(4, 0), 0U) << "no kind";
  EXPECT_EQ(with(4, 6), 0U) << "another kind";
  EXPECT_EQ(with(5, 2), 0U) << "more bytes than there are";
  EXPECT_EQ(with(5, 0xFF), 0U) << "a size without an end";
  for (const size_t size : {Part::kMostIdBytes, Part::kMostIdBytes + 1}) {
    std::string named;
    append_to_message(named, std::string(size, 'a'), {{1, 1}, Kind::kHead, "h"});
    EXPECT_EQ(read(named).size(), size == Part::kMostIdBytes ? 1U : 0U) << size;
  }
  const std::string endless = std::string(kPartsMessage) + "\001a" + std::string(20, '\xFF');
  EXPECT_TRUE(read(endless).empty());
}

TEST(EntryTest, HasPartsInARow) {
  std::string entry;
  append_to_entry(entry, {{5, 200}, Kind::kChunk, "one"});
  append_to_entry(entry, {{5, 201}, Kind::kEnd, ""});
  EntryReader reader({5, 201}, entry);
  EXPECT_EQ(reader.at(), (PartPlace{5, 200}));
  Part part;
  ASSERT_TRUE(reader.next(part));
  EXPECT_EQ(part.place, (PartPlace{5, 200}));
  EXPECT_EQ(part.bytes, "one");
  ASSERT_TRUE(reader.next(part));
  EXPECT_EQ(part.place, (PartPlace{5, 201}));
  EXPECT_EQ(part.kind, Kind::kEnd);
  EXPECT_FALSE(reader.next(part));
  EXPECT_FALSE(reader.broken());
}

TEST(EntryTest, ThatHasOtherPartsThanItsIdSaysIsBroken) {
  std::string entry;
  append_to_entry(entry, {{5, 2}, Kind::kChunk, "one"});
  append_to_entry(entry, {{5, 3}, Kind::kChunk, "two"});
  for (const PartPlace last :
       {PartPlace{5, 1}, PartPlace{5, 2}, PartPlace{5, 4}, PartPlace{0, 3}}) {
    EntryReader reader(last, entry);
    for (Part part; reader.next(part);) {
      EXPECT_LE(part.place.number, last.number);
    }
    EXPECT_TRUE(reader.broken()) << last.text();
  }
  EXPECT_TRUE(EntryReader({5, 3}, "").broken());
  EXPECT_TRUE(EntryReader({5, 3}, std::string_view("\0", 1)).broken());
}

}  // namespace
}  // namespace penstock::queue
