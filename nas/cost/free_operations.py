"""ATen operations without products, by name: their cost is nothing, by the rule of nas/cost/counting.py.

Arithmetic on single values, reductions and views, which torch has tags for, are not listed.
"""

from __future__ import annotations

FREE = frozenset(
    (
        # norms, activations, softmax
        "native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training _batch_norm_no_update "
        "_batch_norm_with_update cudnn_batch_norm miopen_batch_norm native_layer_norm native_group_norm _fused_rms_norm "
        "_weight_norm_interface _softmax _log_softmax _safe_softmax _masked_softmax logcumsumexp _logcumsumexp "
        "log_sigmoid_forward _prelu_kernel hardswish heaviside rrelu_with_noise glu native_dropout "
        "_thnn_fused_lstm_cell _thnn_fused_gru_cell renorm "
        # pooling and resizing
        "_adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_max_pool2d adaptive_max_pool3d avg_pool2d avg_pool3d "
        "max_pool2d_with_indices max_pool3d_with_indices fractional_max_pool2d fractional_max_pool3d max_unpool2d "
        "max_unpool3d upsample_nearest1d upsample_nearest2d upsample_nearest3d _upsample_nearest_exact1d "
        "_upsample_nearest_exact2d _upsample_nearest_exact3d upsample_linear1d upsample_bilinear2d upsample_trilinear3d "
        "upsample_bicubic2d _upsample_bilinear2d_aa _upsample_bicubic2d_aa grid_sampler_2d grid_sampler_3d "
        "_grid_sampler_2d_cpu_fallback affine_grid_generator "
        # reductions and orders
        "cummax cummin _cummax_helper _cummin_helper cumprod cumsum median nanmedian mode kthvalue sort topk trace "
        "searchsorted bucketize histc bincount isin nonzero unique_consecutive _unique2 unique_dim _aminmax aminmax "
        "dist allclose "
        # what moves values
        "cat stack _chunk_cat constant_pad_nd reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d "
        "replication_pad2d replication_pad3d repeat roll rot90 flip gather take index index_add index_copy index_fill "
        "index_put _index_put_impl index_reduce index_select _unsafe_index _unsafe_index_put _unsafe_masked_index "
        "masked_fill masked_scatter masked_select scatter scatter_add scatter_reduce slice_scatter select_scatter "
        "diagonal_scatter as_strided_scatter segment_reduce tril triu diag_embed block_diag channel_shuffle "
        "pixel_shuffle pixel_unshuffle im2col col2im embedding _embedding_bag _embedding_bag_forward_only unsafe_split "
        "unsafe_split_with_sizes squeeze_ unsqueeze_ t_ transpose_ detach_ as_strided_ _unsafe_view _stack _to_copy "
        "copy copy_ clone _reshape_copy lift lift_fresh lift_fresh_copy resize resize_ set_ _local_scalar_dense "
        "_pack_padded_sequence _pin_memory is_same_size "
        # what asks, and what tracing leaves behind
        "_assert_async _assert_scalar _assert_tensor_metadata _functional_assert_async _functional_assert_scalar "
        "sym_constrain_range sym_constrain_range_for_size "
        # what makes values
        "arange range linspace logspace eye empty empty_like empty_strided empty_permuted full full_like new_empty "
        "new_empty_strided new_full new_ones new_zeros ones ones_like zeros zeros_like scalar_tensor fill zero "
        "tril_indices triu_indices complex polar view_as_real view_as_complex bernoulli rand rand_like randn randn_like "
        "randint randperm normal exponential geometric cauchy log_normal multinomial random poisson normal_functional "
        "uniform "
        # products of vectors that keep both axes sum over nothing
        "addr outer linalg_cross"
    ).split()
)
