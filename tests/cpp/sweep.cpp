// How tiles cover a matrix (cpu/kernels/sweep.h): each row, unit and piece once, and pieces in their order.
#include "cpu/kernels/sweep.h"

#include <map>
#include <utility>
#include <vector>

#include "check.h"

namespace fusedrnn::baseline {
namespace {

UNIT_TEST(rows_are_dealt_out_evenly) {
  for (unsigned most = 1; most <= 24; ++most)
    for (int64_t n = 1; n <= 200; ++n) {
      const Deal deal(n, most);
      int64_t sum = 0;
      int least = 1 << 20, largest = 0;
      for (unsigned tile = 0; tile < deal.tiles; ++tile) {
        const int rows = deal.rows(tile);
        sum += rows;
        least = rows < least ? rows : least;
        largest = rows > largest ? rows : largest;
      }
      CHECK(sum == n);
      CHECK(largest <= static_cast<int>(most) && least >= 1 && largest - least <= 1);
      CHECK(deal.tiles == (n + most - 1) / most);
      CHECK(deal.rows(0) == largest);  // from which a sweep takes the width of its tiles
    }
}

// Keeps a record of the tiles instead of multiplying.
struct Record {
  std::map<std::pair<int64_t, int64_t>, std::vector<int64_t>> pieces;  // by (row, unit)
  std::vector<Place> places;
  bool too_large = false;
};
template <int Gates> struct Recorder {
  struct Args {
    Record* record;
  };
  static constexpr int gates = Gates;
  template <int Rows, int Units> static void tile(const Args& a, const Place& at) {
    a.record->too_large |= Rows * Units * Gates > max_accumulators;
    a.record->places.push_back(at);
    for (int r = 0; r < Rows; ++r)
      for (int u = 0; u < Units; ++u) a.record->pieces[{at.row + r, at.unit + u}].push_back(at.piece);
  }
};

Share never_stopped() {
  Share share{};
  share.size = 1;
  share.poll = [](void*) { return true; };
  return share;
}

template <int Gates> void cover(int64_t n, int64_t u0, int64_t u1, int64_t pieces, bool odd) {
  Record record;
  Sweep<Recorder<Gates>>::run({&record}, never_stopped(), n, u0, u1, pieces, odd);
  CHECK(!record.too_large);
  CHECK(static_cast<int64_t>(record.pieces.size()) == n * (u1 - u0));
  std::vector<int64_t> in_order;
  for (int64_t piece = 0; piece < pieces; ++piece) in_order.push_back(piece);
  for (const auto& [place, made] : record.pieces) {
    CHECK(place.first >= 0 && place.first < n && place.second >= u0 && place.second < u1);
    CHECK(made == in_order);
  }
  // What a tile is told of the next group of weights is what comes next.
  for (size_t i = 0; i + 1 < record.places.size(); ++i) {
    const Place &here = record.places[i], &next = record.places[i + 1];
    if (here.left > 0)
      CHECK(next.left == here.left - 1 && next.unit == here.unit && next.piece == here.piece);
    else
      CHECK(next.unit == here.next_unit && next.piece == here.next_piece);
  }
}

template <int Gates> void cover_all() {
  for (int64_t n = 0; n <= 20; ++n)
    for (int64_t units = 0; units <= 9; ++units)
      for (int64_t pieces = 1; pieces <= 3; ++pieces)
        for (bool odd : {false, true}) cover<Gates>(n, 2, 2 + units, pieces, odd);
}
UNIT_TEST(every_tile_once_and_pieces_in_order) {
  cover_all<1>();
  cover_all<3>();
  cover_all<4>();
}

// Odd sweeps begin with the weights that even ones read last.
UNIT_TEST(odd_sweeps_take_units_backwards) {
  Record even, odd;
  Sweep<Recorder<4>>::run({&even}, never_stopped(), 5, 0, 7, 1, false);
  Sweep<Recorder<4>>::run({&odd}, never_stopped(), 5, 0, 7, 1, true);
  CHECK(odd.places.front().unit == even.places.back().unit);
  CHECK(odd.places.back().unit == even.places.front().unit);
}

UNIT_TEST(pieces_cover_k) {
  for (int64_t K : {1, 511, 512, 513, 1536, 1537}) {
    int64_t end = 0;
    for (int64_t piece = 0; piece < ceil_div(K, piece_length); ++piece) {
      const auto [begin, length] = piece_of<float>(piece, K);
      CHECK(begin == end && length >= 1 && length <= piece_length);
      end = begin + length;
    }
    CHECK(end == K);
  }
}

// The last tiles of a group fetch each line of the next group once; small weights are left alone.
UNIT_TEST(next_weights_are_fetched_once) {
  constexpr int vectors = 4, K = 10, L = Vec<float>::lanes;
  std::vector<float> memory(3 * K * vectors * L);
  const PackedMatrix<float, vectors> weights{memory.data(), K};
  std::vector<int> fetched(memory.size(), 0);
  for (int64_t left = 7; left >= 0; --left) {
    const Place at{0, 0, 0, left, 2, 0};
    const float* w = weights.from(0, 0);
    Ahead<float> ahead = weights.ahead(1, at, w, K, 0, cached_bytes + 1);
    CHECK((ahead.step == 0) == (left >= vectors));
    for (int64_t k = 0; k < K && ahead.step; ++k, ahead.at += ahead.step)
      ++fetched[static_cast<size_t>(ahead.at - memory.data())];
    CHECK(weights.ahead(1, at, w, K, 0, cached_bytes).step == 0);
  }
  for (size_t i = 0; i < fetched.size(); ++i) CHECK(fetched[i] == (i >= 2 * K * vectors * L && i % L == 0 ? 1 : 0));
}

UNIT_TEST(a_sweep_that_is_stopped_ends_soon) {
  Record record;
  int asked = 0;
  Share share = never_stopped();
  share.context = &asked;
  share.poll = [](void* context) { return ++*static_cast<int*>(context) < 3; };
  CHECK(!Sweep<Recorder<4>>::run({&record}, share, 100'000, 0, 3, 2));
  CHECK(asked == 3);
  const size_t tiles = record.places.size();
  CHECK(tiles >= 3 && tiles <= 3 * 256);
  CHECK(Sweep<Recorder<4>>::run({&record}, share, 1, 0, 3, 2));  // too short to ask
  CHECK(asked == 3);
}

}  // namespace
}  // namespace fusedrnn::baseline
