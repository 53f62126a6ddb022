// A step's integers, packed for one copy to the device.
//
// Host and device hold the same layout: arrays at fixed offsets, so that a captured graph finds
// them where they were, and the block tables of all sequences end to end behind them. What is
// copied is everything up to the last table entry.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "worker/engines/llama/runner.h"

namespace penstock::llama::cuda {

// Rows [row, row + rows) of one sequence, for attention.
struct Tile {
  int32_t row;
  int32_t rows;
};

// How one token is to be drawn.
struct Draw {
  double random;
  float temperature;
  float top_p;
  int32_t top_k;
  int32_t below;  // ids below this only; 0: any
  float reach;    // no logit further below the largest
  int32_t unused;
};

struct BatchLimits {
  int64_t rows = 0;    // in a step
  int64_t draws = 0;   // tokens drawn in a step
  int64_t blocks = 0;  // block table entries of all sequences together
};

// Pointers into one buffer laid out by `limits`, on either side.
struct BatchView {
  static int64_t bytes(const BatchLimits& limits);
  BatchView() = default;
  BatchView(std::byte* base, const BatchLimits& limits);

  int32_t* tokens = nullptr;     // [rows]
  int32_t* positions = nullptr;  // [rows] -1: a row that only fills up a bucket
  int32_t* tables = nullptr;     // [rows] where in `blocks` the row's sequence's table begins
  int32_t* reaches = nullptr;  // [rows] tokens the row's tile looks at: its last row's position + 1
  Tile* tiles = nullptr;       // [rows] at most one for each row
  int32_t* wanted = nullptr;   // [draws] the rows whose logits are wanted
  Draw* draws = nullptr;       // [draws]
  int32_t* blocks = nullptr;   // [blocks]
};

// What was filled in.
struct BatchShape {
  int64_t rows = 0;
  int64_t tiles = 0;
  int64_t decoding = 0;  // of both: the first so many tiles are of one row each, of a part of one
  int64_t draws = 0;
  int64_t blocks = 0;
};

// True if every part is one token that wants its successor: the step that a graph may run.
bool is_decode(std::span<const SequencePart> parts);

// Fills `host` with the parts, those of one token first, and, up to `rows` in all, with rows that
// stand nowhere: each a tile and a draw of its own. Draws are in the order of the parts. REQUIRES:
// everything fits the limits the view was made with; rows is 0 or the parts are a decode step of no
// more than that.
BatchShape fill(const BatchView& host, std::span<const SequencePart> parts, int64_t tile_rows,
                int64_t rows);

// Bytes from the view's base that a step of this shape uses.
int64_t used_bytes(const BatchLimits& limits, const BatchShape& shape);

}  // namespace penstock::llama::cuda
