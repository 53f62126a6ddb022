#include "worker/engines/process/line_reader.h"

#include <gtest/gtest.h>

#include <vector>

namespace penstock::process {
namespace {

struct Collected {
  std::vector<std::string> lines;
  std::vector<bool> whole;
  LineReader::OnLine on_line = [this](const LineReader::Line& line) {
    lines.emplace_back(line.text);
    whole.push_back(line.whole);
  };
};

using Lines = std::vector<std::string>;

TEST(LineReaderTest, LinesAreTheSameWhereverTheyAreCut) {
  const std::string text = "{\"a\":\"\xE2\x80\xA8\"}\r\n\nnoise\rmore\n{}\n";
  const Lines expected = {"{\"a\":\"\xE2\x80\xA8\"}", "", "noise\rmore", "{}"};
  for (size_t cut = 0; cut <= text.size(); ++cut) {
    LineReader reader(100);
    Collected got;
    reader.feed(text.substr(0, cut), got.on_line);
    reader.feed(text.substr(cut), got.on_line);
    EXPECT_EQ(got.lines, expected) << cut;
  }
}

TEST(LineReaderTest, WhatIsBegunAtTheEndIsALine) {
  LineReader reader(100);
  Collected got;
  reader.feed("{\"last\":1}", got.on_line);
  EXPECT_EQ(got.lines, Lines{});
  reader.finish(got.on_line);
  reader.finish(got.on_line);
  EXPECT_EQ(got.lines, Lines{"{\"last\":1}"});
}

TEST(LineReaderTest, AnObjectOverTheBoundIsItsBeginningAndTheNextIsWhole) {
  for (const size_t piece : {size_t{1}, size_t{7}, size_t{100000}}) {
    LineReader reader(2000);
    Collected got;
    const std::string text =
        "{" + std::string(1999, 'x') + "\n{" + std::string(2000, 'y') + "\n{}\n";
    for (size_t at = 0; at < text.size(); at += piece) {
      reader.feed(text.substr(at, piece), got.on_line);
    }
    ASSERT_EQ(got.lines.size(), 3U);
    EXPECT_EQ(got.whole, (std::vector<bool>{true, false, true}));
    EXPECT_EQ(got.lines[0].size(), 2000U);
    EXPECT_EQ(got.lines[1], "{" + std::string(LineReader::kBeginningBytes - 1, 'y'));
    EXPECT_EQ(got.lines[2], "{}");
  }
}

TEST(LineReaderTest, OfNoiseTheBeginningIsKept) {
  LineReader reader(1 << 20);
  Collected got;
  for (int i = 0; i < 100; ++i) {
    reader.feed(std::string(1000, 'n'), got.on_line);
  }
  reader.feed("\nshort\n", got.on_line);
  EXPECT_EQ(got.lines, (Lines{std::string(LineReader::kBeginningBytes, 'n'), "short"}));
  EXPECT_EQ(got.whole, (std::vector<bool>{false, true}));
}

}  // namespace
}  // namespace penstock::process
