// How the tiles cover a matrix.
#pragma once
#include "core/share.h"
#include "cpu/kernels/dense_block.h"
#include "cpu/kernels/tile.h"

namespace fusedrnn::FUSEDRNN_ISA {

// Caches of a core as the kernels reckon with them: a first level of 32 to 48 KiB, a second one of 1 MiB.
constexpr int64_t first_level_bytes = 48 << 10;
// What two matrices of weights may take together that are to stay in the second level.
constexpr int64_t second_level_bytes = 896 << 10;
// Weights whose whole sweep exceeds this are fetched ahead of the tiles; smaller ones are at hand.
constexpr int64_t cached_bytes = 768 << 10;

// Which tile of a sweep this is: `left` counts the tiles that pass over the same weights after it. Then the sweep goes
// on to (next_unit, next_piece), or stays where it is at its end.
struct Place {
  int64_t row, unit, piece, left;
  int64_t next_unit, next_piece;
};

// Where a piece of K elements of E begins, and how many it has.
struct Piece {
  int64_t begin, length;
};
template <class E> FUSEDRNN_INLINE Piece piece_of(int64_t piece, int64_t K) {
  constexpr int64_t most = longest_piece<E> / Operand<E>::values;
  return {piece * most, smaller(most, K - piece * most)};
}

// A matrix packed as the tiles read it, (blocks, K, vectors, lanes): for each k the vectors of a block are adjacent.
template <class E, int vectors> struct PackedMatrix {
  static constexpr int64_t lanes = Vec<E>::lanes;
  const E* data;
  int64_t K;

  FUSEDRNN_INLINE const E* from(int64_t block, int64_t k) const { return data + (block * K + k) * vectors * lanes; }

  // What a tile of so many blocks fetches while it reads k's from w on: those that the sweep reads next, from next_k
  // on. Each of the last tiles fetches a line per k, of one block. (Fetched by the first ones they would be gone
  // again.)
  FUSEDRNN_INLINE Ahead<E> ahead(int units, const Place& at, const E* w, int64_t k, int64_t next_k,
                                 int64_t swept_bytes) const {
    const E* next = from(at.next_unit + at.left % units, next_k);
    const int64_t left = at.left / units;
    if (swept_bytes <= cached_bytes || left >= vectors || next == w) return {w, 0};
    return {next + left * k * lanes, lanes};
  }
};

// Rows are dealt out evenly to tiles of at most `most` (8 = 4 + 4, not 6 + 2): a thin tile would wait for the weights
// of its one or two rows.
struct Deal {
  unsigned tiles, base, taller;
  FUSEDRNN_INLINE Deal(int64_t n, unsigned most) {
    // 32-bit and once a sweep: a 64-bit division takes as long as a small tile.
    const unsigned count = static_cast<unsigned>(n);
    tiles = count <= most ? 1 : (count + most - 1) / most;
    base = tiles == 1 ? count : count / tiles;
    taller = count - base * tiles;
  }
  FUSEDRNN_INLINE int rows(int64_t tile) const { return static_cast<int>(base + (tile < taller)); }
};

// Asks during a sweep whether to stop: after so many tiles, which take about a millisecond.
class Pace {
 public:
  FUSEDRNN_INLINE explicit Pace(const Share& share) : share_(share) {}
  // How many of `tiles` that are wanted come before the next question.
  FUSEDRNN_INLINE int64_t stretch(int64_t tiles) const { return smaller(tiles, left_); }
  FUSEDRNN_INLINE bool after(int64_t tiles) {  // false: stop
    if ((left_ -= tiles) > 0) return true;
    left_ = most;
    return share_.poll(share_.context);
  }

 private:
  static constexpr int64_t most = 256;
  const Share& share_;
  int64_t left_ = most;
};

// Calls Work::tile<Rows, Units>(args, place), or Work::any_tile(args, place, Rows, log2 Units), over rows [0, n), units
// [u0, u1) and `pieces` of k. Weights are the large operand, so they move slowest: all rows pass over one group of
// units and one piece of k while that piece of the weights is in cache.
template <class Work> struct Sweep {
  using Args = typename Work::Args;
  using Function = void (*)(const Args&, const Place&);
  static constexpr int rows_max = max_rows(Work::gates);
  static constexpr bool takes_any = requires { requires Work::any_shape; };

  struct Table {
    Function at[rows_max + 1][4];  // [rows][log2 units]
  };
  template <int Rows> static constexpr void fill(Table& table) {
    if constexpr (Rows >= 1) {
      constexpr int units = max_units(Rows, Work::gates);
      table.at[Rows][0] = Work::template tile<Rows, 1>;
      if constexpr (units >= 2) table.at[Rows][1] = Work::template tile<Rows, 2>;
      if constexpr (units >= 4) table.at[Rows][2] = Work::template tile<Rows, 4>;
      if constexpr (units >= 8) table.at[Rows][3] = Work::template tile<Rows, 8>;
      fill<Rows - 1>(table);
    }
  }
  static constexpr Table make() {
    Table table{};
    fill<rows_max>(table);
    return table;
  }

  // Odd sweeps take the units from the last to the first, so that they find in cache what the sweep before them read
  // last; the same weights in the same order every time would push each other out. False: somebody asked to stop.
  static bool run(const Args& args, const Share& share, int64_t n, int64_t u0, int64_t u1, int64_t pieces,
                  bool odd = false) {
    if (n <= 0) return true;
    Pace pace(share);
    const Deal deal(n, rows_max);
    // The next group has at most as many units as this one, a power of two.
    int64_t left = u1 - u0;
    int next = max_units(deal.rows(0), Work::gates), log2_next = __builtin_ctz(static_cast<unsigned>(next));
    const auto narrow = [&]() FUSEDRNN_BODY {
      while (next > left) next /= 2, --log2_next;
    };
    narrow();
    for (int64_t u = odd ? u1 - next : u0; left > 0;) {
      const int units = next, log2_units = log2_next;
      left -= units;
      if (left > 0) narrow();
      const int64_t after = left == 0 ? u : odd ? u - next : u + units;
      for (int64_t piece = 0; piece < pieces; ++piece) {
        const bool stays = piece + 1 < pieces || after == u;
        Place at{0, u, piece, deal.tiles, stays ? u : after, piece + 1 < pieces ? piece + 1 : stays ? piece : 0};
        while (at.left > 0) {
          const int64_t tiles = pace.stretch(at.left), end = at.left - tiles;
          while (at.left-- > end) {
            const int rows = deal.rows(at.left);
            if constexpr (takes_any) {
              Work::any_tile(args, at, rows, log2_units);
            } else {
              static constexpr Table table = make();
              table.at[rows][log2_units](args, at);
            }
            at.row += rows;
          }
          ++at.left;
          if (!pace.after(tiles)) return false;
        }
      }
      u = after;
    }
    return true;
  }
};

// The dense block's part of sweep_blocks; `join`: with the block before it.
template <class Work, class E, bool joins>
__attribute__((noinline)) bool sweep_dense(const typename Work::Args& args, const Share& share, const Blocks& blocks,
                                           int64_t n, int64_t pieces, bool join) {
  Pace pace(share);
  const Deal deal(n, static_cast<unsigned>(DenseTile<E>::most_rows(blocks.vectors)));
  const int64_t unit = blocks.wide - join;
  for (int64_t piece = 0; piece < pieces; ++piece)
    for (Place at{0, unit, piece, deal.tiles, unit, piece}; at.left-- > 0;) {
      const int rows = deal.rows(at.left);
      if constexpr (joins)
        if (join) {
          Work::joined(args, at);
          continue;
        }
      Work::dense(args, at, rows);
      at.row += rows;
      if (!pace.after(1)) return false;
    }
  return true;
}

// Sweep over blocks [u0, u1) of units. Work::dense(args, place, rows) does what tile does, for the dense block;
// Work::joined(args, place), if there is one, for a single row of that block and the one before.
template <class Work, class E, bool joins = true>
FUSEDRNN_INLINE bool sweep_blocks(const typename Work::Args& args, const Share& share, const Blocks& blocks, int64_t n,
                                  int64_t u0, int64_t u1, int64_t pieces, bool odd = false) {
  if constexpr (Work::gates == 1) return Sweep<Work>::run(args, share, n, u0, u1, pieces, odd);
  const bool dense = n > 0 && u1 > blocks.wide, join = joins && dense && n == 1 && u0 < blocks.wide;
  if (!Sweep<Work>::run(args, share, n, u0, smaller(u1, blocks.wide) - join, pieces, odd)) return false;
  if constexpr (Work::gates > 1)
    if (dense) return sweep_dense<Work, E, joins>(args, share, blocks, n, pieces, join);
  return true;
}

}  // namespace fusedrnn::FUSEDRNN_ISA
