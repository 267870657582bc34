#include "cuda/path_plan.h"

#include <algorithm>

namespace fusedrnn::cuda {
namespace {

constexpr int64_t round_up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

// All zeros where the sizes do not fit a block of threads.
Residence place(int64_t outputs, int64_t inputs, int64_t hidden_size, int64_t biases, int64_t item, int samples) {
  const int64_t kept = kept_inputs(item), sum = std::max<int64_t>(item, 4);
  const int64_t groups = (outputs + outputs_each - 1) / outputs_each;
  if (groups > most_threads || samples * hidden_size > most_threads) return {};
  // Slices of what the registers hold keep chains of sums short. Where there would be too many threads they are longer.
  const int64_t most_slices = most_threads / groups;
  const int64_t slice = std::max(kept, round_up((inputs + most_slices - 1) / most_slices, 4));
  const int64_t slices = (inputs + slice - 1) / slice, threads = slices * groups;

  Residence r{};
  r.outputs = static_cast<int>(outputs);
  r.inputs = static_cast<int>(inputs);
  r.groups = static_cast<int>(groups);
  r.slices = static_cast<int>(slices);
  r.slice_inputs = static_cast<int>(slice);
  r.block_threads = static_cast<int>(round_up(std::max(threads, samples * hidden_size), 32));
  r.workers = static_cast<int>(threads);
  const int64_t inputs_at = std::max<int64_t>(slice - kept, 0) * threads * outputs_each * item;
  const int64_t sums_at = inputs_at + samples * slices * slice * sum;
  const int64_t biases_at = sums_at + samples * threads * outputs_each * sum;
  r.inputs_at = static_cast<int>(inputs_at);
  r.sums_at = static_cast<int>(sums_at);
  r.biases_at = static_cast<int>(biases_at);
  r.shared_bytes = biases_at + biases * sum;
  return r;
}

bool fits(const Residence& r, const Limits& limits) { return r.groups > 0 && r.shared_bytes <= limits.shared_bytes; }

}  // namespace

PathPlan plan_path(Path most, Pass pass, const CellLayout& layout, int64_t hidden_size, int64_t item_bytes, bool tf32,
                   int64_t batch, int64_t num_directions, const Limits& limits) {
  const int64_t rows = layout.gates * hidden_size;
  PathPlan plan{};
  const FusedLimits fused = fused_limits(item_bytes, tf32);
  const int64_t rows_in_one = pass == Pass::forward ? fused.forward_rows : fused.backward_rows;
  if (most >= Path::fused && batch <= rows_in_one && hidden_size <= fused.hidden_size) plan.path = Path::fused;
  if (most < Path::resident) return plan;
  const auto with_samples = [&](int samples) {
    const Residence forward = place(rows, hidden_size, hidden_size, layout.slots * hidden_size, item_bytes, samples);
    const Residence backward = place(hidden_size, rows, hidden_size, 0, item_bytes, samples);
    if (!fits(forward, limits) || !fits(backward, limits)) return;
    plan = {Path::resident, samples, (batch + samples - 1) / samples, forward, backward};
  };
  with_samples(1);
  if (plan.path != Path::resident) return plan;
  // One sample a block is the shortest step. More share a block where blocks would have to wait for others to end.
  const int64_t threads = std::max(plan.forward.block_threads, plan.backward.block_threads);
  const int64_t shared = std::max(plan.forward.shared_bytes, plan.backward.shared_bytes);
  const int64_t beside = std::max<int64_t>(std::min(most_threads / threads, limits.shared_bytes / shared), 1);
  if (batch * num_directions > beside * limits.multiprocessors) with_samples(most_samples(item_bytes));
  return plan;
}

std::string PathPlan::describe() const {
  if (path == Path::stepwise) return "cuda: stepwise";
  if (path == Path::fused) return "cuda: fused";
  const int64_t shared_bytes = std::max(forward.shared_bytes, backward.shared_bytes);
  return "cuda: resident x" + std::to_string(blocks) + " (" + std::to_string(samples) + " x " +
         std::to_string(std::max(forward.block_threads, backward.block_threads)) + " threads, " +
         std::to_string((shared_bytes + 1023) / 1024) + " KiB)";
}

}  // namespace fusedrnn::cuda
