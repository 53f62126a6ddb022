#include "worker/engines/llama/cuda/batch.h"

#include <algorithm>

#include "worker/engines/llama/cuda/plan.h"

namespace penstock::llama::cuda {
namespace {

struct Offsets {
  explicit Offsets(const BatchLimits& limits) {
    Layout layout;
    const int64_t row_bytes = limits.rows * static_cast<int64_t>(sizeof(int32_t));
    tokens = layout.take(row_bytes);
    positions = layout.take(row_bytes);
    tables = layout.take(row_bytes);
    reaches = layout.take(row_bytes);
    tiles = layout.take(limits.rows * static_cast<int64_t>(sizeof(Tile)));
    wanted = layout.take(limits.draws * static_cast<int64_t>(sizeof(int32_t)));
    draws = layout.take(limits.draws * static_cast<int64_t>(sizeof(Draw)));
    blocks = layout.bytes();
  }
  int64_t tokens, positions, tables, reaches, tiles, wanted, draws, blocks;
};

int64_t block_bytes(int64_t blocks) { return blocks * static_cast<int64_t>(sizeof(int32_t)); }

void add_rows(const BatchView& host, const SequencePart& part, int64_t tile_rows,
              BatchShape& shape) {
  const auto tokens = static_cast<int64_t>(part.tokens.size());
  for (int64_t i = 0; i < tokens; i += tile_rows) {
    const int64_t rows = std::min(tile_rows, tokens - i);
    const auto first = static_cast<int32_t>(shape.rows);
    host.tiles[shape.tiles++] = {first, static_cast<int32_t>(rows)};
    const auto reach = part.position + static_cast<int32_t>(i + rows);
    for (int64_t j = i; j < i + rows; ++j) {
      host.tokens[shape.rows] = part.tokens[j];
      host.positions[shape.rows] = part.position + static_cast<int32_t>(j);
      host.tables[shape.rows] = static_cast<int32_t>(shape.blocks);
      host.reaches[shape.rows] = reach;
      ++shape.rows;
    }
  }
}

// Only the blocks that are looked at: a table may be long for what is to come.
void add_table(const BatchView& host, const SequencePart& part, BatchShape& shape) {
  const auto tokens = part.position + static_cast<int64_t>(part.tokens.size());
  const auto used = part.blocks.first(static_cast<size_t>(BlockPool::blocks_for(tokens)));
  std::copy(used.begin(), used.end(), host.blocks + shape.blocks);
  shape.blocks += static_cast<int64_t>(used.size());
}

}  // namespace

int64_t BatchView::bytes(const BatchLimits& limits) {
  return Offsets(limits).blocks + block_bytes(limits.blocks);
}

BatchView::BatchView(std::byte* base, const BatchLimits& limits) {
  const Offsets at(limits);
  tokens = reinterpret_cast<int32_t*>(base + at.tokens);
  positions = reinterpret_cast<int32_t*>(base + at.positions);
  tables = reinterpret_cast<int32_t*>(base + at.tables);
  reaches = reinterpret_cast<int32_t*>(base + at.reaches);
  tiles = reinterpret_cast<Tile*>(base + at.tiles);
  wanted = reinterpret_cast<int32_t*>(base + at.wanted);
  draws = reinterpret_cast<Draw*>(base + at.draws);
  blocks = reinterpret_cast<int32_t*>(base + at.blocks);
}

bool is_decode(std::span<const SequencePart> parts) {
  return std::all_of(parts.begin(), parts.end(), [](const SequencePart& part) {
    return part.tokens.size() == 1 && part.wants_logits;
  });
}

BatchShape fill(const BatchView& host, std::span<const SequencePart> parts, int64_t tile_rows,
                int64_t rows) {
  BatchShape shape;
  for (const bool decoding : {true, false}) {
    int64_t draw = 0;
    for (const SequencePart& part : parts) {
      if ((part.tokens.size() == 1) == decoding) {
        add_rows(host, part, tile_rows, shape);
        add_table(host, part, shape);
        if (part.wants_logits) {
          host.wanted[draw] = static_cast<int32_t>(shape.rows - 1);
        }
      }
      draw += part.wants_logits ? 1 : 0;
    }
    shape.decoding = decoding ? shape.tiles : shape.decoding;
  }
  for (const SequencePart& part : parts) {
    if (part.wants_logits) {
      host.draws[shape.draws++] = {part.random,
                                   part.sampling.temperature,
                                   part.sampling.top_p,
                                   part.sampling.top_k,
                                   part.sampling.below,
                                   reach_of(part.sampling),
                                   0};
    }
  }
  const bool all_decode = shape.decoding == shape.tiles;
  for (; shape.rows < rows; ++shape.rows) {
    const auto row = static_cast<int32_t>(shape.rows);
    host.tokens[row] = 0;
    host.positions[row] = -1;
    host.tables[row] = 0;
    host.reaches[row] = 0;
    host.tiles[shape.tiles++] = {row, 1};
    host.wanted[shape.draws] = row;
    host.draws[shape.draws++] = {0, 0, 1, 0, 0, 0, 0};
  }
  shape.decoding = all_decode ? shape.tiles : shape.decoding;
  return shape;
}

int64_t used_bytes(const BatchLimits& limits, const BatchShape& shape) {
  return Offsets(limits).blocks + block_bytes(shape.blocks);
}

}  // namespace penstock::llama::cuda
