"Tables and figures of the report notebooks, beside the paper's numbers."
