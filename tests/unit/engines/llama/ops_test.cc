// Every operation of every CPU level against the scalar reference, over odd shapes, outputs
// poisoned first.
#include "worker/engines/llama/ops.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

namespace penstock::llama {
namespace {

constexpr float kPoison = std::numeric_limits<float>::quiet_NaN();

// A tensor with its own memory, one float past the end to catch who writes there.
struct Owned {
  Owned(int64_t r, int64_t c) : data(r * c + 1, kPoison), rows(r), cols(c) {}
  Tensor tensor() { return {reinterpret_cast<std::byte*>(data.data()), DType::kF32, rows, cols}; }
  bool end_untouched() const { return std::isnan(data.back()); }
  std::vector<float> data;
  int64_t rows, cols;
};

struct OwnedWeight {
  std::vector<std::byte> data;
  ConstTensor tensor;
};

class OpsTest : public testing::TestWithParam<std::pair<CpuLevel, int>> {
 protected:
  void SetUp() override {
    if (GetParam().first > best_cpu_level()) {
      GTEST_SKIP() << "this machine has no such instructions";
    }
    fast_ = cpu_backend(GetParam().second, GetParam().first);
  }

  Owned random(int64_t rows, int64_t cols, float scale = 1) {
    Owned owned(rows, cols);
    std::normal_distribution<float> normal(0, scale);
    for (int64_t i = 0; i < rows * cols; ++i) {
      owned.data[i] = normal(random_);
    }
    return owned;
  }

  OwnedWeight weight(int64_t rows, int64_t cols, DType dtype) {
    Owned from = random(rows, cols);
    OwnedWeight to;
    to.data.resize(rows * cols * bytes_of(dtype));
    for (int64_t i = 0; i < rows * cols; ++i) {
      uint32_t bits;
      std::memcpy(&bits, &from.data[i], 4);
      // F16: sign, exponent rebased, fraction cut; no subnormals needed here.
      const int exponent = static_cast<int>(bits >> 23 & 0xFF) - 112;
      const auto f16 = static_cast<uint16_t>(
          (bits >> 16 & 0x8000) |
          (exponent > 0 && exponent < 31 ? exponent << 10 | (bits >> 13 & 0x3FF) : 0));
      const auto bf16 = static_cast<uint16_t>(bits >> 16);
      const void* source = dtype == DType::kF32   ? static_cast<const void*>(&bits)
                           : dtype == DType::kF16 ? &f16
                                                  : &bf16;
      std::memcpy(to.data.data() + i * bytes_of(dtype), source, bytes_of(dtype));
    }
    to.tensor = {to.data.data(), dtype, rows, cols};
    return to;
  }

  static void expect_near(const Owned& got, const Owned& expected, float tolerance) {
    ASSERT_TRUE(got.end_untouched());
    for (int64_t i = 0; i < got.rows * got.cols; ++i) {
      ASSERT_NEAR(got.data[i], expected.data[i],
                  tolerance * std::max(1.0F, std::fabs(expected.data[i])))
          << "row " << i / got.cols << " of " << got.rows << ", column " << i % got.cols << " of "
          << got.cols;
    }
  }

  int64_t between(int64_t low, int64_t high) {
    return std::uniform_int_distribution<int64_t>(low, high)(random_);
  }

  std::mt19937 random_{7};
  std::unique_ptr<Backend> reference_ = reference_backend();
  std::unique_ptr<Backend> fast_;
};

constexpr DType kAllTypes[] = {DType::kF32, DType::kF16, DType::kBF16};

TEST_P(OpsTest, MatmulEqualsReferenceForEveryTypeAndOddShape) {
  for (int round = 0; round < 60; ++round) {
    for (const DType dtype : kAllTypes) {
      const int64_t tokens = between(1, 15);
      const int64_t cols = between(1, 80);
      const int64_t rows = between(1, 70);
      Owned x = random(tokens, cols);
      const OwnedWeight w = weight(rows, cols, dtype);
      const OwnedWeight bias = weight(1, rows, dtype);
      const ConstTensor added = round % 2 == 0 ? bias.tensor : ConstTensor{};
      Owned got(tokens, rows);
      Owned expected(tokens, rows);
      fast_->matmul(got.tensor(), x.tensor(), w.tensor, added);
      reference_->matmul(expected.tensor(), x.tensor(), w.tensor, added);
      expect_near(got, expected, 2e-5F);
    }
  }
}

TEST_P(OpsTest, LargeMatmulIsSharedAmongThreadsAndEqualsReference) {
  Owned x = random(19, 515);
  const OwnedWeight w = weight(611, 515, DType::kBF16);
  Owned got(19, 611);
  Owned expected(19, 611);
  fast_->matmul(got.tensor(), x.tensor(), w.tensor, {});
  reference_->matmul(expected.tensor(), x.tensor(), w.tensor, {});
  expect_near(got, expected, 1e-4F);
}

TEST_P(OpsTest, ARowOfMatmulIsTheSameToTheBitAloneAndInAnyBatch) {
  for (const DType dtype : kAllTypes) {
    Owned x = random(23, 133);
    const OwnedWeight w = weight(101, 133, dtype);
    Owned together(23, 101);
    fast_->matmul(together.tensor(), x.tensor(), w.tensor, {});
    for (int64_t first = 0; first < 23; ++first) {
      for (int64_t count = 1; count <= 23 - first && count <= 13; ++count) {
        Owned part(count, 101);
        const Tensor rows{reinterpret_cast<std::byte*>(x.data.data() + first * 133), DType::kF32,
                          count, 133};
        fast_->matmul(part.tensor(), rows, w.tensor, {});
        ASSERT_EQ(
            0, std::memcmp(part.data.data(), together.data.data() + first * 101, count * 101 * 4))
            << count << " rows from " << first;
      }
    }
  }
}

TEST_P(OpsTest, RmsNormEqualsReference) {
  for (int64_t cols = 1; cols < 70; ++cols) {
    for (const DType dtype : kAllTypes) {
      Owned x = random(3, cols, 4);
      const OwnedWeight w = weight(1, cols, dtype);
      Owned got(3, cols);
      Owned expected(3, cols);
      fast_->rms_norm(got.tensor(), x.tensor(), w.tensor, 1e-5F);
      reference_->rms_norm(expected.tensor(), x.tensor(), w.tensor, 1e-5F);
      expect_near(got, expected, 1e-5F);
      fast_->rms_norm(x.tensor(), x.tensor(), w.tensor, 1e-5F);
      expect_near(x, expected, 1e-5F);
    }
  }
}

TEST_P(OpsTest, SwigluEqualsReferenceEvenFarFromZero) {
  for (const float scale : {1.0F, 30.0F, 1000.0F}) {
    for (int64_t cols = 1; cols < 40; ++cols) {
      Owned got = random(3, cols, scale);
      Owned expected = got;
      Owned up = random(3, cols);
      fast_->swiglu(got.tensor(), up.tensor());
      reference_->swiglu(expected.tensor(), up.tensor());
      expect_near(got, expected, 1e-6F);
    }
  }
}

TEST_P(OpsTest, RopeAddAndEmbedEqualReference) {
  for (int64_t half = 1; half < 20; ++half) {
    Owned got = random(5, 3 * 2 * half);
    Owned expected = got;
    Owned turns = random(5, 2 * half);
    fast_->rope(got.tensor(), turns.tensor(), 2 * half);
    reference_->rope(expected.tensor(), turns.tensor(), 2 * half);
    expect_near(got, expected, 1e-6F);
    Owned more = random(5, got.cols);
    fast_->add(got.tensor(), more.tensor());
    reference_->add(expected.tensor(), more.tensor());
    expect_near(got, expected, 1e-6F);
    for (const DType dtype : kAllTypes) {
      const OwnedWeight table = weight(9, got.cols, dtype);
      const std::vector<int32_t> rows = {8, 0, 3, 3, 7};
      fast_->embed(got.tensor(), table.tensor, rows);
      reference_->embed(expected.tensor(), table.tensor, rows);
      expect_near(got, expected, 0);
    }
  }
}

// Several sequences of different lengths with shuffled blocks, some rows of each in the step.
class Paged {
 public:
  Paged(const HeadShape& head_shape, std::mt19937& random) : shape(head_shape) {
    std::vector<int32_t> blocks(kBlocks);
    for (int32_t i = 0; i < kBlocks; ++i) {
      blocks[i] = i;
    }
    std::shuffle(blocks.begin(), blocks.end(), random);
    for (int32_t s = 0; s < 3; ++s) {
      tables.insert(tables.end(), blocks.begin() + s * 4, blocks.begin() + s * 4 + 4);
      const int32_t length = std::uniform_int_distribution<int32_t>(1, 64)(random);
      for (int32_t p = 0; p < length; ++p) {
        positions.push_back(p);
        sequences.push_back(s);
      }
    }
  }
  Placement placement() const { return {positions, sequences, tables, 4}; }
  int64_t rows() const { return static_cast<int64_t>(positions.size()); }
  Owned keys() const { return {kBlocks * shape.kv_heads * shape.head_dim, kBlockTokens}; }
  Owned values() const { return {kBlocks * shape.kv_heads * kBlockTokens, shape.head_dim}; }

  static constexpr int32_t kBlocks = 14;
  HeadShape shape;
  std::vector<int32_t> positions, sequences, tables;
};

TEST_P(OpsTest, PagedAttentionEqualsReferenceAndNeverLooksAtStaleSlots) {
  const HeadShape shapes[] = {{1, 1, 2}, {4, 2, 16}, {6, 2, 20}, {5, 5, 34}, {7, 1, 6}, {65, 1, 4}};
  for (const HeadShape& shape : shapes) {
    for (int round = 0; round < 4; ++round) {
      Paged paged(shape, random_);
      Owned key = random(paged.rows(), shape.kv_heads * shape.head_dim);
      Owned value = random(paged.rows(), shape.kv_heads * shape.head_dim);
      Owned query = random(paged.rows(), shape.heads * shape.head_dim, 2);
      // The cache starts full of NaN: whoever reads a slot that was not stored will show it.
      Owned keys = paged.keys(), values = paged.values();
      Owned fast_keys = paged.keys(), fast_values = paged.values();
      const KvLayer cache{keys.tensor(), values.tensor()};
      const KvLayer fast_cache{fast_keys.tensor(), fast_values.tensor()};
      reference_->store_kv(cache, key.tensor(), value.tensor(), paged.placement(), shape);
      fast_->store_kv(fast_cache, key.tensor(), value.tensor(), paged.placement(), shape);
      ASSERT_EQ(0, std::memcmp(keys.data.data(), fast_keys.data.data(), keys.data.size() * 4));
      ASSERT_EQ(0,
                std::memcmp(values.data.data(), fast_values.data.data(), values.data.size() * 4));
      Owned got(query.rows, query.cols);
      Owned expected(query.rows, query.cols);
      fast_->attention(got.tensor(), query.tensor(), fast_cache, paged.placement(), shape);
      reference_->attention(expected.tensor(), query.tensor(), cache, paged.placement(), shape);
      expect_near(got, expected, 2e-5F);
    }
  }
}

TEST(DTypeTest, EveryHalfPrecisionNumberConvertsExactly) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const auto half = static_cast<uint16_t>(bits);
    const int exponent = half >> 10 & 0x1F;
    const int fraction = half & 0x3FF;
    double expected =
        exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, exponent - 25);
    if (exponent == 31) {
      expected = fraction == 0 ? INFINITY : NAN;
    }
    expected = half & 0x8000 ? -expected : expected;
    const float got = to_float(F16{half});
    ASSERT_TRUE(std::isnan(expected) ? std::isnan(got) : got == expected) << bits;
    ASSERT_EQ(std::signbit(got), (half & 0x8000) != 0) << bits;
  }
}

std::string name_of(const testing::TestParamInfo<OpsTest::ParamType>& param) {
  constexpr const char* kNames[] = {"Baseline", "Avx2", "Avx512"};
  return std::string(kNames[static_cast<int>(param.param.first)]) + "Threads" +
         std::to_string(param.param.second);
}

INSTANTIATE_TEST_SUITE_P(Levels, OpsTest,
                         testing::Values(std::pair(CpuLevel::kBaseline, 1),
                                         std::pair(CpuLevel::kAvx2, 1),
                                         std::pair(CpuLevel::kAvx512, 1),
                                         std::pair(CpuLevel::kAvx512, 3)),
                         name_of);

}  // namespace
}  // namespace penstock::llama
