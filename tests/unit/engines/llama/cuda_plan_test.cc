// What the CUDA engine decides before a step: buckets, splits, the pool's size, the batch.
#include "worker/engines/llama/cuda/plan.h"

#include <gtest/gtest.h>

#include <set>

#include "worker/engines/llama/cuda/batch.h"

namespace penstock::llama::cuda {
namespace {

TEST(PlanTest, ABucketHoldsItsRowsAndWastesLittle) {
  std::set<int64_t> buckets;
  for (int64_t rows = 1; rows <= kMaxParts; ++rows) {
    const int64_t bucket = bucket_of(rows);
    EXPECT_GE(bucket, rows);
    EXPECT_EQ(bucket_of(bucket), bucket) << "a full bucket is its own";
    EXPECT_LE(bucket, rows <= 8 ? 8 : rows * 3 / 2 + 7);
    buckets.insert(bucket);
  }
  EXPECT_LE(buckets.size(), 20U) << "each is a graph";
  EXPECT_EQ(*buckets.rbegin(), kMaxParts);
}

TEST(PlanTest, ATileNeverHasMoreQueriesThanTheKernelKeeps) {
  for (int64_t group = 1; group <= 70; ++group) {
    const int64_t rows = rows_per_tile(group);
    EXPECT_GE(rows, 1);
    EXPECT_LE(rows * std::min<int64_t>(group, kTileQueries), kTileQueries) << group;
  }
}

TEST(PlanTest, SplitsCoverEverySequenceOnceInWholeTiles) {
  for (int32_t reach = 1; reach < 5000; reach += 7) {
    for (const int32_t splits : {1, 2, 3, 31, kMaxSplits}) {
      const int32_t tokens = split_tokens(reach, splits);
      EXPECT_EQ(tokens % kTileTokens, 0);
      EXPECT_GE(static_cast<int64_t>(tokens) * splits, reach);
      EXPECT_GT(tokens, 0);
    }
  }
  EXPECT_EQ(split_tokens((1 << 24), 1), 1 << 24) << "the longest a config allows";
}

TEST(PlanTest, FewSequencesAreSplitToKeepTheDeviceBusyAndManyAreNot) {
  constexpr int64_t kProcessors = 132;
  EXPECT_EQ(splits_of(1, 32, 8, kProcessors), kMaxSplits);
  EXPECT_EQ(splits_of(256, 32, 8, kProcessors), 1);
  for (int64_t tiles = 1; tiles < 300; ++tiles) {
    const int64_t splits = splits_of(tiles, 32, 8, kProcessors);
    EXPECT_GE(splits, 1);
    EXPECT_LE(splits, kMaxSplits);
    EXPECT_LE(splits, splits_of(std::max<int64_t>(1, tiles - 1), 32, 8, kProcessors));
  }
}

TEST(PlanTest, ThePoolIsWhatMemoryAllowsAndTheDeviceHasFree) {
  constexpr int64_t kGiB = int64_t{1} << 30;
  constexpr int64_t kBlock = 1 << 20;
  EXPECT_EQ(*pool_blocks(2 * kGiB, 40 * kGiB, kBlock, 1 << 20), 2048);
  EXPECT_EQ(*pool_blocks(0, 40 * kGiB, kBlock, 1 << 20), 40 * 1024 - 1024) << "some is left";
  EXPECT_EQ(*pool_blocks(64 * kGiB, 40 * kGiB, kBlock, 1 << 20), 40 * 1024 - 1024)
      << "never more than there is";
  EXPECT_EQ(*pool_blocks(0, 40 * kGiB, kBlock, 77), 77) << "nor more than can be used";
  EXPECT_EQ(*pool_blocks(0, 8 * kBlock, kBlock, 77), 7);
  const auto none = pool_blocks(kBlock - 1, 40 * kGiB, kBlock, 77);
  ASSERT_FALSE(none);
  EXPECT_NE(none.error().message.find("memory"), std::string::npos);
  EXPECT_FALSE(pool_blocks(kGiB, 0, kBlock, 77));
}

TEST(PlanTest, ALayoutsPiecesAreAlignedAndDoNotOverlap) {
  Layout layout;
  int64_t end = 0;
  for (const int64_t bytes : {1, 256, 257, 0, 1000}) {
    const int64_t at = layout.take(bytes);
    EXPECT_EQ(at % Layout::kAlign, 0);
    EXPECT_GE(at, end);
    end = at + bytes;
  }
  EXPECT_GE(layout.bytes(), end);
}

class BatchTest : public testing::Test {
 protected:
  BatchShape fill_with(const std::vector<SequencePart>& parts, int64_t tile_rows, int64_t rows) {
    memory_.assign(BatchView::bytes(limits_), std::byte{0xEE});
    view_ = BatchView(memory_.data(), limits_);
    return fill(view_, parts, tile_rows, rows);
  }

  const BatchLimits limits_{40, 16, 30};
  std::vector<std::byte> memory_;
  BatchView view_;
  const std::vector<int32_t> tokens_ = {10, 11, 12, 13, 14};
  const std::vector<int32_t> table_ = {7, 3, 9};
};

TEST_F(BatchTest, ADecodeStepIsFilledUpToItsBucketWithRowsThatStandNowhere) {
  const std::vector<int32_t> other = {4};
  const std::vector<SequencePart> parts = {
      {std::span(tokens_).first(1), 20, table_, true, {.temperature = 0.5F, .top_p = 0.9F}, 0.25},
      {std::span(tokens_).subspan(1, 1),
       3,
       other,
       true,
       {.temperature = 0, .top_k = 6, .below = 9},
       0.75}};
  ASSERT_TRUE(is_decode(parts));
  const BatchShape shape = fill_with(parts, 2, 4);
  EXPECT_EQ(shape.rows, 4);
  EXPECT_EQ(shape.tiles, 4);
  EXPECT_EQ(shape.draws, 4);
  EXPECT_EQ(shape.blocks, 3) << "two of the first's three are looked at, one of the second's";
  EXPECT_EQ(view_.positions[0], 20);
  EXPECT_EQ(view_.reaches[0], 21);
  EXPECT_EQ(view_.blocks[view_.tables[0] + 20 / kBlockTokens], 3);
  EXPECT_EQ(view_.blocks[view_.tables[1]], 4);
  EXPECT_EQ(view_.draws[0].temperature, 0.5F);
  EXPECT_EQ(view_.draws[0].top_p, 0.9F);
  EXPECT_EQ(view_.draws[0].random, 0.25);
  EXPECT_EQ(view_.draws[1].top_k, 6);
  EXPECT_EQ(view_.draws[1].below, 9);
  for (int32_t row = 0; row < 4; ++row) {
    EXPECT_EQ(view_.tiles[row].row, row);
    EXPECT_EQ(view_.tiles[row].rows, 1);
    EXPECT_EQ(view_.wanted[row], row);
  }
  for (int32_t row = 2; row < 4; ++row) {
    EXPECT_EQ(view_.positions[row], -1);
    EXPECT_EQ(view_.reaches[row], 0);
    EXPECT_EQ(view_.tokens[row], 0) << "one that every vocabulary has";
  }
}

TEST_F(BatchTest, APromptsRowsAreTiledAndLookAsFarAsTheirTilesLastRow) {
  const std::vector<SequencePart> parts = {{std::span(tokens_).first(1), 40, table_, true},
                                           {tokens_, 30, table_, false},
                                           {tokens_, 0, table_, true}};
  EXPECT_FALSE(is_decode(parts));
  const BatchShape shape = fill_with(parts, 2, 0);
  EXPECT_EQ(shape.rows, 11);
  EXPECT_EQ(shape.tiles, 1 + 3 + 3);
  EXPECT_EQ(shape.draws, 2);
  EXPECT_EQ(view_.wanted[0], 0);
  EXPECT_EQ(view_.wanted[1], 10) << "the last token of the prompt that is read to its end";
  const std::vector<int32_t> reaches(view_.reaches, view_.reaches + shape.rows);
  EXPECT_EQ(reaches, (std::vector<int32_t>{41, 32, 32, 34, 34, 35, 2, 2, 4, 4, 5}));
  const std::vector<int32_t> tokens(view_.tokens, view_.tokens + shape.rows);
  EXPECT_EQ(tokens, (std::vector<int32_t>{10, 10, 11, 12, 13, 14, 10, 11, 12, 13, 14}));
  for (int64_t tile = 0, row = 0; tile < shape.tiles; row += view_.tiles[tile++].rows) {
    EXPECT_EQ(view_.tiles[tile].row, row) << "tiles follow one another";
  }
}

TEST_F(BatchTest, RowsThatDecodeComeFirstAndDrawsInTheOrderOfTheParts) {
  const std::vector<SequencePart> parts = {{tokens_, 30, table_, true},
                                           {std::span(tokens_).first(1), 40, table_, true},
                                           {std::span(tokens_).first(2), 4, table_, false},
                                           {std::span(tokens_).first(1), 9, table_, true}};
  const BatchShape shape = fill_with(parts, 2, 0);
  EXPECT_EQ(shape.decoding, 2);
  EXPECT_EQ(shape.tiles, 2 + 3 + 1);
  const std::vector<int32_t> positions(view_.positions, view_.positions + shape.rows);
  EXPECT_EQ(positions, (std::vector<int32_t>{40, 9, 30, 31, 32, 33, 34, 4, 5}));
  const std::vector<int32_t> wanted(view_.wanted, view_.wanted + shape.draws);
  EXPECT_EQ(wanted, (std::vector<int32_t>{6, 0, 1}));
  EXPECT_EQ(fill_with({parts[1], parts[3]}, 2, 4).decoding, 4) << "with those that fill up";
}

TEST(PlanTest, SplitsOfAnyStepHaveRoom) {
  for (const int64_t rows : {1, 7, 96, 768}) {
    const int64_t most = most_partials(rows, 32, 8, 132);
    for (int64_t decoding = 0; decoding <= rows; ++decoding) {
      EXPECT_LE(decoding * splits_of(decoding, 32, 8, 132), most);
      const int64_t rest = rows - decoding;
      EXPECT_LE(rest * splits_of((rest + 1) / 2, 32, 8, 132), most);
    }
  }
}

TEST(PlanTest, SequencesBesideALongPromptAreSplitAsIfTheyWereAlone) {
  EXPECT_EQ(splits_of(256 + 4, 32, 8, 132), 1);
  EXPECT_GT(splits_of(4, 32, 8, 132), 15);
}

TEST_F(BatchTest, WhatIsCopiedHoldsEverythingThatIsUsedAndNoMoreTablesThanThat) {
  const std::vector<SequencePart> parts = {{tokens_, 30, table_, true}};
  const BatchShape shape = fill_with(parts, 1, 0);
  const int64_t used = used_bytes(limits_, shape);
  EXPECT_EQ(memory_.data() + used, reinterpret_cast<std::byte*>(view_.blocks + shape.blocks));
  EXPECT_LE(used, BatchView::bytes(limits_));
  for (int64_t at = used; at < BatchView::bytes(limits_); ++at) {
    ASSERT_EQ(memory_[at], std::byte{0xEE});
  }
}

TEST_F(BatchTest, AFullBatchFitsExactly) {
  std::vector<int32_t> tokens(24, 1);
  std::vector<int32_t> blocks(30);
  std::vector<SequencePart> parts = {{tokens, 26 * 16 - 24, std::span(blocks).first(26), true}};
  for (int32_t i = 0; i < 4; ++i) {
    parts.push_back({std::span(tokens).first(4), 12, std::span(blocks).subspan(26 + i, 1), true});
  }
  const BatchShape shape = fill_with(parts, 1, 0);
  EXPECT_EQ(shape.rows, limits_.rows);
  EXPECT_EQ(shape.blocks, limits_.blocks);
  EXPECT_EQ(used_bytes(limits_, shape), BatchView::bytes(limits_));
}

}  // namespace
}  // namespace penstock::llama::cuda
