// How a call is shared out (core/plan.h), and the path of a call on a GPU (cuda/path_plan.h).
#include "core/plan.h"

#include "check.h"
#include "core/problem.h"
#include "cuda/path_plan.h"

namespace fusedrnn {
namespace {

constexpr Machine one_core{1, 1 << 20}, eight_cores{8, 1 << 20};

Plan plan(int64_t T, int64_t B, int64_t H, int64_t layers, int64_t directions, const Machine& machine, Pass pass) {
  Problem p = problem_of("lstm", H, H, layers, directions, false, true);
  p.set_extent(T, B);
  return make_plan(p, T * B, 16, 4, machine, pass);
}

UNIT_TEST(one_thread_where_there_is_one_or_little_to_do) {
  CHECK(plan(100, 64, 512, 2, 2, one_core, Pass::forward).scheme == Scheme::single);
  CHECK(plan(1, 1, 8, 1, 1, eight_cores, Pass::forward).describe() == "single x1");
  CHECK(plan(0, 8, 256, 1, 1, eight_cores, Pass::forward).threads == 1);
  CHECK(worthwhile_threads(0, 8) == 1 && worthwhile_threads(int64_t(1) << 40, 8) == 8);
}

UNIT_TEST(each_scheme_has_its_case) {
  CHECK(plan(100, 64, 128, 1, 1, eight_cores, Pass::forward).describe() == "by_sample x8");
  CHECK(plan(100, 1, 64, 1, 2, {2, 1 << 20}, Pass::forward).scheme == Scheme::by_direction);
  CHECK(plan(100, 1, 64, 2, 1, {2, 1 << 20}, Pass::forward).scheme == Scheme::by_layer);
  CHECK(plan(100, 1, 512, 1, 1, eight_cores, Pass::forward).scheme == Scheme::by_unit);
}

UNIT_TEST(a_plan_keeps_to_what_there_is) {
  for (Pass pass : {Pass::forward, Pass::backward})
    for (int64_t T : {1, 40})
      for (int64_t B : {1, 3, 64})
        for (int64_t H : {1, 30, 300})
          for (int64_t layers : {1, 3})
            for (int64_t directions : {1, 2})
              for (int threads : {1, 2, 3, 7}) {
                const Plan made = plan(T, B, H, layers, directions, {threads, 1 << 20}, pass);
                CHECK(made.threads >= 1 && made.threads <= threads);
                CHECK(made.gradient_threads >= 1 && made.gradient_threads <= threads);
                CHECK(made.gradient_threads >= made.threads);
                CHECK((made.scheme == Scheme::single) == (made.threads == 1));
                if (made.scheme == Scheme::by_sample) CHECK(made.threads <= B);
                if (made.scheme == Scheme::by_direction) CHECK(made.threads == 2 && directions == 2);
                if (made.scheme == Scheme::by_unit) CHECK(2 * made.threads <= (H + 15) / 16);
                if (made.scheme == Scheme::by_layer)
                  CHECK(pass == Pass::forward && directions == 1 && T >= 32 && made.threads <= layers);
              }
}

UNIT_TEST(paths_on_a_gpu) {
  using namespace cuda;
  const CellLayout lstm = layout_of(CellKind::lstm);
  const Limits h100{132, 227 << 10};
  for (int64_t H = 1; H <= 600; H += 7)
    for (int64_t item : {2, 4, 8}) {
      const PathPlan made = plan_path(Path::resident, Pass::forward, lstm, H, item, false, 3, 1, h100);
      for (int64_t batch : {1, 64, 1000})  // never the batch's choice
        CHECK((plan_path(Path::resident, Pass::forward, lstm, H, item, false, batch, 1, h100).path == Path::resident) ==
              (made.path == Path::resident));
      if (made.path != Path::resident) continue;
      for (const Residence& r : {made.forward, made.backward}) {
        CHECK(r.shared_bytes <= h100.shared_bytes && r.block_threads <= most_threads && r.block_threads % 32 == 0);
        CHECK(r.slices * r.slice_inputs >= r.inputs && (r.slices - 1) * r.slice_inputs < r.inputs);
        CHECK(r.groups * outputs_each >= r.outputs && r.slices * r.groups <= r.block_threads);
      }
      CHECK(made.samples * made.blocks >= 3);
    }
  CHECK(plan_path(Path::resident, Pass::forward, lstm, 4096, 4, false, 3, 1, h100).path == Path::fused);
  CHECK(plan_path(Path::resident, Pass::backward, lstm, 4096, 4, false, 4, 1, h100).path == Path::fused);
  CHECK(plan_path(Path::resident, Pass::backward, lstm, 4096, 4, false, 5, 1, h100).path == Path::stepwise);
  CHECK(plan_path(Path::resident, Pass::forward, lstm, 4096, 4, true, 3, 1, h100).path == Path::stepwise);
  CHECK(plan_path(Path::resident, Pass::forward, lstm, 4096, 4, false, 64, 1, h100).path == Path::stepwise);
  CHECK(plan_path(Path::stepwise, Pass::forward, lstm, 16, 4, false, 1, 1, h100).path == Path::stepwise);
}

}  // namespace
}  // namespace fusedrnn
